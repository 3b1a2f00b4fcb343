"""Words that the generated worlds are made of, and small draws from them."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

PEOPLE = """Ada Alan Barbara Claude Dennis Donald Edsger Frances Grace Hedy Jean John Kathleen Ken Leslie Linus Margaret
Niklaus Radia Shafi Tim Tony Vint Whitfield""".split()
FAMILY_NAMES = """Allen Backus Berners Cerf Dijkstra Floyd Hamming Hoare Hopper Iverson Knuth Lamport Liskov Lovelace
McCarthy Milner Minsky Newell Perlis Perlman Ritchie Shannon Sutherland Thompson Turing Wirth""".split()
CITIES = """Accra Bergen Cusco Dakar Essen Fukuoka Galway Hanoi Izmir Jaipur Kigali Lima Malmo Nairobi Oslo Porto Quito
Riga Sapporo Tartu Utrecht Vienna Warsaw Yerevan Zagreb""".split()
GOODS = """anvil bearing bolt cable clamp drill filter gasket hinge lever magnet nozzle pulley relay sensor spring switch
valve washer wrench""".split()
SERVICES = "auth billing cache catalog gateway ingest mailer metrics orders payments search sessions storage".split()
WORDS = """about above across active after again angle apple arrow basic beach begin below black block board brain bread
bridge brief brown build cabin carry cause chain chair chart chase clean clear climb clock close cloud coast color count
cover craft crowd curve cycle dance delay depth draft dream drive early earth eight empty enjoy enter equal event every
exact field final flame fleet float floor focus forge frame fresh front fruit glass globe grain grand grass green group
guide habit heart horse house human image index inner input issue judge juice knife label labor large laser later layer
learn lemon level light limit local logic lucky lunch magic major maple march match maybe metal meter model money month
motor mount mouse music nerve never night noise north novel ocean offer often olive onion order other outer panel paper
party patch peace phase phone photo piano piece pilot pitch place plain plane plant plate point pound power press price
""".split()


def sentence(rng: random.Random, least: int = 4, most: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, most)))


def person(rng: random.Random) -> str:
    return f"{rng.choice(PEOPLE)} {rng.choice(FAMILY_NAMES)}"


def moment(rng: random.Random) -> datetime:
    """UTC, whole seconds, of the six years from 2019."""
    return datetime(2019, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(6 * 366 * 86400))


def address(rng: random.Random) -> str:
    """Of a network that is kept for documentation."""
    return f"{rng.choice(['192.0.2', '198.51.100', '203.0.113'])}.{rng.randint(1, 254)}"


def folder_name(rng: random.Random) -> str:
    return f"{rng.choice(WORDS)}-{rng.choice(GOODS)}"
