"""Names on a broker: no id can be two levels or a wildcard, and a broker is named without its password."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.server import mqtt_topics as topics
from tokenauction.server.mqtt_topics import DEFAULT_PREFIX, Address, InvalidAddress


@given(st.text(min_size=1))
def test_every_id_is_one_level_that_says_it_again(agent_id: str) -> None:
    try:
        agent_id.encode()
    except UnicodeEncodeError:
        return  # no id: the wire takes no half of a pair
    topic = topics.bids("p/q", agent_id)
    assert topic.count("/") == 4 and not set(topic) & set("+#\0")
    assert topics.agent_of("p/q", topic) == agent_id
    assert topics.is_reply_topic("p/q", agent_id, topics.replies("p/q", agent_id))


@given(st.text(), st.text(min_size=1))
def test_reply_topic_is_always_below_the_agents_own(topic: str, agent_id: str) -> None:
    try:
        own = topics.replies("p", agent_id)
    except UnicodeEncodeError:
        return
    assert not topics.is_reply_topic("p", agent_id, topic) or topic.startswith(own)
    for sign in "+#\0":
        assert not topics.is_reply_topic("p", agent_id, f"{own}/{sign}")


@pytest.mark.parametrize(
    ("url", "shown", "port", "username", "prefix"),
    [
        ("mqtt://localhost", "mqtt://localhost:1883", 1883, None, DEFAULT_PREFIX),
        ("mqtt://me@10.0.0.1:99/my/place/", "mqtt://10.0.0.1:99", 99, "me", "my/place"),
        ("mqtts://a%40b@broker.example", "mqtts://broker.example:8883", 8883, "a@b", DEFAULT_PREFIX),
    ],
)
def test_address_is_read(url: str, shown: str, port: int, username: str | None, prefix: str) -> None:
    address = Address.parse(url, "secret")
    assert (str(address), address.port, address.username, address.prefix) == (shown, port, username, prefix)
    assert "secret" not in str(address) and (address.tls is not None) == url.startswith("mqtts")


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "http://x", "mqtt://", "mqtt://x:0x", "mqtt://x:99999", "mqtt://me:secret@x", "mqtt://x/a/#",
     "mqtt://x/$SYS", "mqtt://x?y", "mqtt://x#y"],
)  # fmt: skip
def test_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        Address.parse(url)
    assert "secret" not in str(caught.value)


def test_certificates_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    junk, none = tmp_path / "junk.pem", tmp_path / "none.pem"
    for ca, certificate in [(none, None), (junk, None), (None, junk), (None, none)]:
        with pytest.raises(InvalidAddress):
            Address.parse("mqtts://x", ca=ca, certificate=certificate)
    with pytest.raises(InvalidAddress):
        Address.parse("mqtt://x", ca=junk)
