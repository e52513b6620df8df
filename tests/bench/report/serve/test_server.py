"""The server of the page: addresses, ports, and missing packages."""

import socket

import pytest

from moextend.errors import InputError

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from moextend.bench.report.serve import server


def test_a_port_in_use_and_hosts_that_are_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is in use") as found:
            server.Address.opened("127.0.0.1", port)
        assert found.value.where == "--port" and "0 chooses a free one" in str(found.value.hint)
    for host in ("no-such-host.invalid", "203.0.113.7", "a" * 300, "", "x\0y"):
        with pytest.raises(InputError, match="not an address of this machine"):
            server.Address.opened(host, 0)


def test_addresses() -> None:
    for host, url in (("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")):
        try:
            found = server.Address.opened(host, 0)
        except InputError:
            continue  # a machine without IPv6
        with found.socket:
            assert found.url.startswith(url) and found.token is None and found.hosts


def test_missing_packages_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PACKAGES", ("starlette", "no_such_package"))
    with pytest.raises(InputError, match="no_such_package is not installed") as found:
        server.Address.opened("127.0.0.1", 0)
    assert "pip install 'moextend[serve]'" in str(found.value.hint)
