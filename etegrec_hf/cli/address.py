"""The address at which a command serves."""

import errno
import socket


def check_address(host: str, port: int) -> None:
    """Checks that a page can be served at an address, before a model is loaded.

    Raises:
        ValueError: the port doesn't exist, or is in use.
        ValueError: the host isn't an address of this machine.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"`port` is {port}; choose one from 1 to 65535.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"`port` {port} of {host} is in use; choose another port with --port.") from error
        raise ValueError(
            f"`host` {host!r} and `port` {port} can't be listened on ({error.strerror}); give an address of this "
            "machine and a port that you may use."
        ) from error
