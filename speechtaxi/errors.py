"""What a user can repair is an `InputError`; everything else keeps its traceback."""


class InputError(Exception):
    """Bad input, told in one line: what is wrong, where, and what would be right.

    Front doors print the line to stderr and exit with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # names of files may hold line ends
