"""The API: what is asked over HTTP, what is answered, and one JSON error for everything wrong."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speechtaxi import __version__
from speechtaxi.errors import InputError
from speechtaxi.recordings import code_of
from speechtaxi.results.rows import row
from speechtaxi.serve import shapes
from speechtaxi.serve.upload import Asked, Limits, json_form, save
from speechtaxi.serve.worker import Job, Refusal, Worker
from speechtaxi.timeline import stories
from speechtaxi.types import Answer

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; media-src 'self' blob:; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
PAGE = {"/": "page.html"} | {f"/{name}": name for name in ("result.js", "page.js", "page.css")}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


def takes(options: type[shapes.Options]) -> dict[str, Any]:
    """Return how a request's body is documented."""
    sound = {"type": "string", "format": "binary"}
    form = options.model_json_schema()
    form |= {"required": ["file"], "properties": {"file": sound, **form["properties"]}}
    contents = {
        "multipart/form-data": form,
        "application/json": json_form(options).model_json_schema(),
        **dict.fromkeys(("application/octet-stream", "audio/*", "video/*"), sound),
    }
    told = {kind: {"schema": schema} for kind, schema in contents.items()}
    return {"requestBody": {"required": True, "content": told}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how errors of these statuses are documented."""
    return {status: {"model": shapes.Refused} for status in statuses}


HEARS = refusals(400, 401, 403, 413, 415, 422, 429, 500, 503, 504)


def create_app(worker: Worker, limits: Limits = Limits(), token: str | None = None) -> ASGIApp:  # noqa: B008
    """Return the server as an ASGI application, which starts and ends the worker.

    Args:
        token: what clients must send as a bearer token (RFC 6750); None: nothing.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await anyio.to_thread.run_sync(worker.close)

    app = FastAPI(
        title="speechtaxi", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)

    async def guard(request: Request) -> None:
        if request.headers.get("sec-fetch-site") == "cross-site":  # another site's page asks
            raise Refusal(403, "cross_site", "pages of other sites may not ask")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1"), (token or "").encode())
        if token is not None and not (right and scheme.lower() == "bearer"):
            raise Refusal(401, "unauthorized", "send the header 'Authorization: Bearer TOKEN'")

    documented = [Depends(HTTPBearer(auto_error=False))] if token is not None else []
    guarded = APIRouter(dependencies=[Depends(guard), *documented])

    async def told(request: Request, asked: Asked, kind: Any) -> tuple[Asked, Job, list[Any]]:
        job = worker.admit()
        try:
            with anyio.fail_after(limits.timeout):
                asked = await save(request, job, asked, limits)
                romanize = getattr(asked, "romanize", True)
                job.settings = (kind, asked.segments, asked.gate, romanize)
                job.language = known(asked.language)
                return asked, job, await asyncio.wrap_future(worker.submit(job))
        finally:
            job.future.cancel()  # unless it is done, or being done

    @guarded.post("/v1/classify", openapi_extra=takes(shapes.Topics), responses=HEARS)
    async def classify(
        request: Request, asked: Annotated[shapes.Topics, Query()]
    ) -> shapes.Classified:
        """Tell the topic of a recording, by each model."""
        asked, job, answers = await told(request, asked, "classify")

        def rows(some: list[Answer]) -> list[shapes.Row]:
            named = (replace(answer, id=job.name, path=job.name) for answer in some)
            return [shapes.Row(**row(answer, asked.top_k)) for answer in named]

        return shapes.Classified(
            name=job.name,
            seconds=round(job.seconds, 3),
            results=[
                shapes.Result(
                    system=one.name,
                    route=one.route,
                    calibrated=one.teller.model.calibrated,
                    answers=rows(some),
                    stories=rows(stories(a for a in some if a.kind == "segment")),
                )
                for one, some in zip(worker.models, answers, strict=True)
            ],
            agree=len({some[-1].topic for some in answers}) == 1,
        )

    @guarded.post(
        "/v1/transcribe",
        openapi_extra=takes(shapes.Options),
        responses=HEARS | refusals(404),
    )
    async def transcribe(
        request: Request, asked: Annotated[shapes.Options, Query()]
    ) -> shapes.Transcribed:
        """Write what is said in a recording, by each model that reads."""
        if worker.state == "ready" and not any(one.reads for one in worker.models):
            raise Refusal(404, "no_reader", "no model here reads; serve a cascade")
        _, job, answers = await told(request, asked, "transcribe")
        return shapes.Transcribed(name=job.name, seconds=round(job.seconds, 3), results=answers)

    @guarded.get("/v1/models", responses=refusals(401, 403))
    async def models() -> shapes.Models:
        """Tell which models are served; none while they are loading."""
        told = [
            shapes.Model(
                name=one.name,
                route=one.route,
                labels=list(one.labels),
                languages=list(one.languages),
                calibrated=one.teller.model.calibrated,
                reads=one.reads,
            )
            for one in worker.models
        ]
        return shapes.Models(models=told)

    @guarded.get("/metrics", response_class=Response, responses=refusals(401, 403))
    async def metrics() -> Response:
        """Tell numbers to Prometheus."""
        return Response(generate_latest(worker.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/health", responses={503: {"model": shapes.Health}})
    async def health(response: Response) -> shapes.Health:
        """Tell whether requests are taken."""
        response.status_code = 200 if worker.state == "ready" else 503
        return shapes.Health(status=worker.state)

    app.include_router(guarded)
    for path, name in PAGE.items():
        app.add_api_route(path, page(name), include_in_schema=False)
    return Edge(app, worker, limits.bytes)


def page(name: str) -> Callable[[], Response]:
    """Return what serves a file of the page."""

    def serve() -> Response:
        file = files("speechtaxi.serve") / name
        if not file.is_file():
            raise HTTPException(404)
        return Response(file.read_bytes(), media_type=TYPES[name.rsplit(".")[-1]])

    return serve


def known(language: str) -> str:
    """Return the code of a language by any of its names.

    Raises:
        InputError: no such language.
    """
    try:
        return code_of(language)
    except InputError as error:
        raise InputError(str(error).removeprefix("--")) from None


def refuse(status: int, code: str, message: str, headers: Any = None) -> JSONResponse:
    """Return an error as all errors look."""
    line = " ".join(message.split())
    return JSONResponse({"error": {"code": code, "message": line}}, status, headers)


def of_refusal(_: Request, error: Any) -> JSONResponse:
    headers = {"retry-after": str(error.retry)} if error.retry else {}
    headers |= {"www-authenticate": "Bearer"} if error.status == 401 else {}
    return refuse(error.status, error.code, error.message, headers)


def of_input(_: Request, error: Exception) -> JSONResponse:
    # What lies where on this machine is nobody's business
    return refuse(400, "bad_input", re.sub(r"(?<![\w.])/[^\s:;,]+/", "", str(error)))


def of_validation(_: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    where = [str(part) for part in first["loc"][-1:]]
    return refuse(422, "invalid", ": ".join([*where, first["msg"].removeprefix("Value error, ")]))


def of_http(_: Request, error: Any) -> JSONResponse:
    return refuse(
        error.status_code, CODES.get(error.status_code, "error"), str(error.detail), error.headers
    )


def of_timeout(_: Request, error: Exception) -> JSONResponse:
    return refuse(504, "timeout", "no answer in time; send less, or try again later")


def of_bug(_: Request, error: Exception) -> JSONResponse:
    return refuse(500, "internal", "something went wrong here; the server's log tells what")


HANDLERS: dict[Any, Callable[[Request, Any], JSONResponse]] = {
    Refusal: of_refusal,
    InputError: of_input,
    RequestValidationError: of_validation,
    HTTPException: of_http,
    TimeoutError: of_timeout,
    Exception: of_bug,
}


class Edge:
    """Counts answers, adds headers, and lets a client finish sending what is refused.

    A connection that is closed on what is still being sent may lose the answer.
    """

    def __init__(self, app: FastAPI, worker: Worker, most: int) -> None:
        self.app, self.worker, self.most = app, worker, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        unread = not any(name == b"expect" for name, _ in scope["headers"])

        async def heard() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def drain() -> None:
            left = self.most
            with anyio.move_on_after(5):
                while unread and left > 0:
                    left -= len((await heard()).get("body", b""))

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await drain()
                path = getattr(scope.get("route"), "path", "other")
                self.worker.metrics.requests.labels(path, str(message["status"])).inc()
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        await self.app(scope, heard, answer)
