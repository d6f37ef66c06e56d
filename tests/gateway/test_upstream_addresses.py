"""An upstream may be anywhere in public, and nowhere beside us unless a setting says so."""

import socket

import pytest
from pytest_django import Settings

from gateway.http.addresses import ForbiddenAddressError, allowed_addresses
from gateway.http.client import UpstreamClient
from gateway.http.errors import UpstreamUnreachableError
from tests.gateway.raw_server import PATIENT_SECONDS, WHOLE, fetch, serving

BESIDE_US = ["127.0.0.1", "::1", "10.0.0.5", "192.168.1.1", "172.20.0.1", "169.254.169.254", "fd00:ec2::254", "::"]
BESIDE_US += ["::ffff:169.254.169.254", "fe80::1%eth0", "224.0.0.1", "100.64.0.1"]
# Where a network translates between the two internets, these are addresses of IPv4 too.
BESIDE_US += ["64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "64:ff9b:1::a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1"]
# Local ones of the past, and what is given out for other uses than to be reached.
BESIDE_US += ["fec0::1", "5f00::1", "3fff::1", "100::1", "192.0.0.8", "192.88.99.1"]


def found(*addresses: str) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]


@pytest.mark.parametrize("address", BESIDE_US)
def test_addresses_beside_us_are_refused(address: str, settings: Settings) -> None:
    settings.UPSTREAM_NETWORKS = []
    with pytest.raises(ForbiddenAddressError, match="CROSSMODEL_UPSTREAM_NETWORKS"):
        allowed_addresses("acme.example", found(address))
    assert allowed_addresses("acme.example", found(address, "93.184.215.14")) == found("93.184.215.14")


def test_networks_of_the_setting_are_allowed(settings: Settings) -> None:
    settings.UPSTREAM_NETWORKS = ["10.0.0.0/8"]
    assert allowed_addresses("acme.example", found("10.0.0.5", "127.0.0.1")) == found("10.0.0.5")


async def test_no_connection_is_made_to_a_forbidden_address(settings: Settings) -> None:
    client = UpstreamClient(connect_seconds=PATIENT_SECONDS)
    async with serving(WHOLE) as server:
        settings.UPSTREAM_NETWORKS = []
        with pytest.raises(UpstreamUnreachableError):
            await fetch(client, server.url)
        assert server.conversations == []
        settings.UPSTREAM_NETWORKS = ["127.0.0.0/8"]
        assert await fetch(client, server.url) == b"hello"
    await client.aclose()


def test_a_private_metadata_service_is_no_default(settings: Settings) -> None:
    with pytest.raises(ForbiddenAddressError):
        allowed_addresses("metadata", found("169.254.169.254"))
    assert allowed_addresses("localhost", found("127.0.0.1"))
