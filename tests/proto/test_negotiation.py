"""What two sides agree on, and how each no is worded."""

from __future__ import annotations

import pytest

from burstwire.config import AEADS, Config
from burstwire.errors import HandshakeError, HandshakeRefused, VersionMismatch
from burstwire.proto import negotiation
from burstwire.proto.negotiation import Refusal, Refused
from burstwire.wire.parameters import AEAD_IDS, TransportParameters, decode, encode

ADDRESS = bytes(range(24))


def offered(config: Config | None = None, versions: tuple[int, ...] = (1,)) -> TransportParameters:
    made = negotiation.offer(config or Config(), versions, b"t" * 16, 4096, ADDRESS, b"attempt8")
    return decode(encode(made))


def answered(
    aead: str = AEADS[0], config: Config | None = None, versions: tuple[int, ...] = (1,)
) -> TransportParameters:
    made = negotiation.answer(config or Config(), versions, b"r" * 16, 8192, ADDRESS, aead, (7, 9), None)
    return decode(encode(made))


def test_every_limit_of_the_configuration_reaches_the_peer() -> None:
    config = Config(
        idle_timeout=30,
        connection_window=111_111,
        stream_window=55_555,
        max_streams=7,
        max_ack_delay=0.013,
        max_message_size=1234,
        max_datagram_size=1300,
        application_protocol="ping/1",
    )
    for made in (offered(config), answered(config=config)):
        assert made.max_idle_timeout == 30_000
        assert made.initial_max_data == 111_111
        assert made.initial_max_stream_data_bidi_local == 55_555
        assert made.initial_max_stream_data_bidi_remote == 55_555
        assert made.initial_max_streams_bidi == 7
        assert made.max_ack_delay == 13
        assert made.max_message_size == 1234
        assert made.max_udp_payload_size == 1300
        assert made.application_protocol == "ping/1"
        assert made.observed_address == ADDRESS
        assert made.max_datagram_frame_size == 65535
    assert offered(config).receive_buffer == 4096
    assert offered(config).attempt == b"attempt8"
    assert answered(config=config).cids == (7, 9)


def test_a_tiny_idle_timeout_is_not_rounded_to_none() -> None:
    assert offered(Config(idle_timeout=0.0001, keep_alive=0)).max_idle_timeout == 1
    assert offered(Config(idle_timeout=0, keep_alive=0)).max_idle_timeout == 0


@pytest.mark.parametrize(
    ("initiator", "responder", "chosen"),
    [
        (AEADS, AEADS, AEADS[0]),
        (AEADS[::-1], AEADS, AEADS[2]),
        (AEADS, (AEADS[1],), AEADS[1]),
        ((AEADS[2], AEADS[0]), (AEADS[0], AEADS[1]), AEADS[0]),
    ],
)
def test_the_initiators_first_choice_that_the_responder_allows_is_taken(
    initiator: tuple[str, ...], responder: tuple[str, ...], chosen: str
) -> None:
    offer = offered(Config(aeads=initiator))
    assert negotiation.judge(offer, Config(aeads=responder), 1, (1,)) == chosen
    assert negotiation.check_answer(offer, answered(chosen), 1, "peer") == chosen


def test_aeads_that_nobody_knows_are_skipped() -> None:
    offer = offered()._replace(aeads=(200, 77, AEAD_IDS[AEADS[1]]))
    assert negotiation.judge(offer, Config(), 1, (1,)) == AEADS[1]


@pytest.mark.parametrize(
    ("offer", "config", "code", "word"),
    [
        (offered(Config(aeads=(AEADS[0],))), Config(aeads=(AEADS[1],)), Refusal.AEAD, AEADS[1]),
        (offered()._replace(aeads=()), Config(), Refusal.AEAD, "packet protection"),
        (
            offered(Config(application_protocol="a")),
            Config(application_protocol="b"),
            Refusal.PROTOCOL,
            "'b'",
        ),
        (offered(), Config(application_protocol="b"), Refusal.PROTOCOL, "''"),
        (offered()._replace(versions=()), Config(), Refusal.VERSION, "no version"),
        (offered()._replace(versions=(9,)), Config(), Refusal.VERSION, "0x9"),
        (offered()._replace(attempt=None), Config(), Refusal.PARAMETERS, "attempt"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    offer: TransportParameters, config: Config, code: Refusal, word: str
) -> None:
    verdict = negotiation.judge(offer, config, 1, (1,))
    assert isinstance(verdict, Refused)
    assert verdict.code == code
    assert word in verdict.reason


def test_an_initiator_led_below_the_best_common_version_is_refused() -> None:
    verdict = negotiation.judge(offered(versions=(2, 1)), Config(), 1, (1, 2))
    assert isinstance(verdict, Refused)
    assert verdict.code == Refusal.VERSION


def test_an_answer_that_lists_a_better_common_version_betrays_a_downgrade() -> None:
    with pytest.raises(VersionMismatch, match="interfered") as caught:
        negotiation.check_answer(offered(versions=(2, 1)), answered(versions=(2, 1)), 1, "peer")
    assert caught.value.peer_versions == (2, 1)


def test_a_version_that_only_one_side_knows_is_no_downgrade() -> None:
    assert negotiation.check_answer(offered(versions=(3, 1)), answered(versions=(2, 1)), 1, "peer") == AEADS[0]
    assert negotiation.judge(offered(versions=(3, 1)), Config(), 1, (2, 1)) == AEADS[0]


@pytest.mark.parametrize(
    "wrong",
    [
        answered()._replace(aeads=()),
        answered()._replace(aeads=(0, 1)),
        answered()._replace(aeads=(99,)),
        answered()._replace(application_protocol="other"),
        answered()._replace(versions=()),
    ],
)
def test_an_answer_that_makes_no_sense_ends_the_attempt(wrong: TransportParameters) -> None:
    with pytest.raises(HandshakeError, match="the peer"):
        negotiation.check_answer(offered(), wrong, 1, "the peer")


def test_an_aead_that_was_not_offered_is_not_taken() -> None:
    with pytest.raises(HandshakeError, match="not offered"):
        negotiation.check_answer(offered(Config(aeads=(AEADS[0],))), answered(AEADS[2]), 1, "peer")


def test_a_refusal_names_the_peer_the_reason_and_the_code() -> None:
    made = decode(encode(negotiation.refusal(Refused(Refusal.AUTHORIZATION, "not on the list"), (1,), (1, 2))))
    with pytest.raises(HandshakeRefused, match=r"10\.0\.0\.1:7 refused .* not on the list .*authorization") as caught:
        negotiation.check_answer(offered(), made, 1, "10.0.0.1:7")
    assert caught.value.code == Refusal.AUTHORIZATION
    assert caught.value.reason == "not on the list"


def test_a_refusal_with_an_unknown_code_and_hostile_words_is_shown_safely() -> None:
    error = negotiation.refusal_error(4242, "bad\x1b[2Jnews\n" + "x" * 5000, "peer")
    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000
    assert error.code == 4242


def test_a_long_reason_is_cut_at_a_character() -> None:
    made = negotiation.refusal(Refused(1, "ü" * 1000), (1,), (1, 2))
    assert made.refusal is not None
    assert made.refusal[1] == "ü" * (negotiation.MAX_REASON // 2)
