"""Request headers: ordered, repeatable, and discreet about their values."""

from metagov_sdk.headers import Headers


def test_headers_keep_order_and_duplicates_and_hide_values() -> None:
    headers = Headers([("X-A", "1"), ("b", "secret"), ("x-a", "2")])
    assert headers.get("X-a") == "1" and headers.getall("x-A") == ("1", "2")
    assert headers.get("c") is None and headers.get("c", "d") == "d" and headers.getall("c") == ()
    assert headers.raw == (("X-A", "1"), ("b", "secret"), ("x-a", "2"))
    assert list(headers) == ["x-a", "b"] and len(headers) == 2
    assert "B" in headers and "c" not in headers and 3 not in headers
    assert repr(headers) == "Headers(X-A, b, x-a)"
    assert headers == Headers(headers.raw) != Headers([("b", "secret")])
    assert len({headers, Headers(headers.raw)}) == 1
