"""Files of records, in notations that need care."""

from __future__ import annotations

import struct

from arcforge.envs.terminal.draft import Draft, sha256

_PYTHON = "python3 - <<'PYTHON'\n{}\nPYTHON"

QUOTED_CSV = Draft(
    "/app/notes.csv is a CSV file with the header `id,author,note`, quoted as RFC 4180 says: cells may hold commas, quotes and line ends. "
    "Write /app/notes.json: a list of objects with the keys id (a number), author, note and lines (the number of lines of the "
    "note), in the order of the file.",
    _PYTHON.format("""import csv, json
rows = list(csv.DictReader(open('notes.csv', newline='')))
json.dump([{'id': int(r['id']), 'author': r['author'], 'note': r['note'], 'lines': r['note'].count('\\n') + 1} for r in rows],
          open('notes.json', 'w'))"""),
    [{"kind": "json", "path": "notes.json", "value": [
        {"id": 1, "author": "Hopper, Grace", "note": "first\nsecond", "lines": 2},
        {"id": 2, "author": "Ada", "note": 'said "yes", twice', "lines": 1},
        {"id": 10, "author": "", "note": "a,b\n\nc", "lines": 3},
    ]}],
    {"notes.csv": 'id,author,note\n1,"Hopper, Grace","first\nsecond"\n2,Ada,"said ""yes"", twice"\n10,,"a,b\n\nc"\n'},
)  # fmt: skip

_READINGS = [
    (1, 1600000000, 21.5),
    (7, 1600000060, -3.25),
    (2, 1600003600, 0.0),
    (7, 1600007200, 18.75),
    (1, 1600010800, 22.25),
]
BINARY_RECORDS = Draft(
    "/app/readings.bin begins with the four bytes `RDG1` and a little-endian 32-bit unsigned count; that many records follow, each "
    "an unsigned byte (sensor), three bytes of padding, a little-endian 64-bit unsigned time in seconds since 1970 and a little-endian "
    "64-bit float. Bytes after the last record mean nothing. Write /app/readings.csv with the header `sensor,time,value`: a row for "
    "each record in order of time, the time as YYYY-MM-DDTHH:MM:SSZ.",
    _PYTHON.format("""import struct, datetime
raw = open('readings.bin', 'rb').read()
count, = struct.unpack_from('<I', raw, 4)
rows = sorted((struct.unpack_from('<B3xQd', raw, 8 + 20 * i) for i in range(count)), key=lambda r: r[1])
with open('readings.csv', 'w') as out:
    print('sensor,time,value', file=out)
    for s, t, v in rows:
        print(s, datetime.datetime.fromtimestamp(t, datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ'), v, sep=',', file=out)"""),
    [{"kind": "csv", "path": "readings.csv", "rows": [
        ["sensor", "time", "value"], ["1", "2020-09-13T12:26:40Z", "21.5"], ["7", "2020-09-13T12:27:40Z", "-3.25"],
        ["2", "2020-09-13T13:26:40Z", "0"], ["7", "2020-09-13T14:26:40Z", "18.75"], ["1", "2020-09-13T15:26:40Z", "22.25"],
    ]}],
    {"readings.bin": b"RDG1" + struct.pack("<I", 5) + b"".join(struct.pack("<B3xQd", *r) for r in reversed(_READINGS)) + b"\x07tail"},
)  # fmt: skip

_LETTER = "The package is under the third step.\nTell nobody.\n"
LAYERS = Draft(
    "/app/message.bin was made from a text in several layers: it was compressed and encoded, more than once. Undo all of them and write "
    "the text, byte for byte, to /app/message.txt.",
    "base64 -d message.bin | gunzip | base64 -d | bunzip2 > message.txt",
    [{"kind": "bytes", "path": "message.txt", "sha256": sha256(_LETTER)}],
    {"letter": _LETTER},
    setup="bzip2 -c letter | base64 | gzip -n | base64 > message.bin; rm letter",
    packages=("bzip2",),
)

LINKS = Draft(
    "/app/page.html was taken from http://example.com/docs/guide/index.html. Write /app/links.txt: the absolute addresses of all links in it "
    "(the href of `a` elements), each once, without the part from # on, sorted by byte value. Leave out those that are not http "
    "or https, and those in comments.",
    _PYTHON.format("""from html.parser import HTMLParser
from urllib.parse import urljoin, urldefrag
found = set()
class Page(HTMLParser):
    def handle_starttag(self, tag, attributes):
        href = dict(attributes).get('href')
        if tag == 'a' and href is not None:
            address = urldefrag(urljoin('http://example.com/docs/guide/index.html', href))[0]
            if address.startswith(('http://', 'https://')): found.add(address)
Page().feed(open('page.html').read())
open('links.txt', 'w').writelines(a + '\\n' for a in sorted(found))"""),
    [{"kind": "text", "path": "links.txt", "text": (
        "http://example.com/about\nhttp://example.com/docs/faq.html\nhttp://example.com/docs/guide/index.html\n"
        "http://example.com/docs/guide/two.html?x=1&y=2\nhttp://example.net/z\nhttps://example.org/\n")}],
    {"page.html": """<html><head><link href="style.css"></head><body>
<a href="two.html?x=1&amp;y=2#top">two</a> <A HREF='../faq.html'>faq</A> <a href="/about">about</a>
<a class="x"
   href="https://example.org/">out</a> <a href="mailto:ada@example.com">mail</a> <a name="here">no link</a>
<!-- <a href="hidden.html">no</a> --> <a href="#top">top</a> <a href="//example.net/z">z</a> <a href="../faq.html#q2">q</a>
</body></html>
"""},
)  # fmt: skip

LEDGER = Draft(
    "/app/ledger.txt has transactions, separated by empty lines: a line `date title`, then lines `  account  amount` with amounts in "
    "euros and two decimals; one line of a transaction may lack its amount, which is then what brings the sum to zero. Write "
    "/app/balances.txt: `account amount` with two decimals for each account, sorted by account, of all transactions but those that "
    "have all amounts and whose sum is not zero; the titles of those go to /app/wrong.txt, one a line, in the order of the file.",
    _PYTHON.format("""from decimal import Decimal
balances, wrong = {}, []
for block in open('ledger.txt').read().strip().split('\\n\\n'):
    head, *rows = block.split('\\n')
    parts = [row.split() for row in rows]
    total = sum(Decimal(p[1]) for p in parts if len(p) == 2)
    if all(len(p) == 2 for p in parts) and total:
        wrong.append(head.split(' ', 1)[1]); continue
    for p in parts:
        balances[p[0]] = balances.get(p[0], Decimal(0)) + (Decimal(p[1]) if len(p) == 2 else -total)
open('balances.txt', 'w').writelines(f'{a} {v:.2f}\\n' for a, v in sorted(balances.items()))
open('wrong.txt', 'w').writelines(t + '\\n' for t in wrong)"""),
    [
        {"kind": "text", "path": "balances.txt", "text": "bank 1853.55\ncash 20.00\nfood 26.45\nrent 600.00\nsalary -2500.00\n"},
        {"kind": "text", "path": "wrong.txt", "text": "Books\nGift\n"},
    ],
    {"ledger.txt": """2024-01-01 Salary
  bank  2500.00
  salary  -2500.00

2024-01-02 Rent
  rent  600.00
  bank

2024-01-03 Books
  books  30.00
  bank  -29.99

2024-01-04 Market
  food  20.10
  food  6.35
  bank  -26.45

2024-01-05 Gift
  gifts  10.00
  cash  10.00

2024-01-06 Cash
  cash  20.00
  bank
"""},
)  # fmt: skip

SUBNETS = Draft(
    "/app/networks.txt has lines `name network` (IPv4, CIDR), /app/addresses.txt an address a line. Write /app/placed.txt: `address name` for "
    "each address, in the order of the file, with the name of the smallest network that has it, or `none`.",
    _PYTHON.format("""import ipaddress as ip
nets = [(ip.ip_network(n), name) for name, n in (l.split() for l in open('networks.txt'))]
with open('placed.txt', 'w') as out:
    for line in open('addresses.txt'):
        a = ip.ip_address(line.strip())
        print(a, max(((n.prefixlen, name) for n, name in nets if a in n), default=(0, 'none'))[1], file=out)"""),
    [{"kind": "text", "path": "placed.txt", "text": (
        "10.1.2.3 lab\n10.1.9.9 office\n10.2.0.1 ten\n192.0.2.127 low\n192.0.2.128 high\n8.8.8.8 none\n10.1.2.64 rack\n")}],
    {"networks.txt": "ten 10.0.0.0/8\noffice 10.1.0.0/16\nlab 10.1.2.0/24\nrack 10.1.2.64/26\nlow 192.0.2.0/25\nhigh 192.0.2.128/25\n",
     "addresses.txt": "10.1.2.3\n10.1.9.9\n10.2.0.1\n192.0.2.127\n192.0.2.128\n8.8.8.8\n10.1.2.64\n"},
)  # fmt: skip

MIGRATION = Draft(
    "/app/library.db (SQLite) has the table books(id, title, authors), where authors is a text like `Ada Lovelace; Alan Turing`. Change the "
    "database: a table authors(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL) with each author once, a table "
    "book_authors(book_id, author_id, position) with the position of the author in the list from 1 and (book_id, author_id) as its "
    "primary key, and books without its column authors. Ids and titles of the books stay.",
    _PYTHON.format("""import sqlite3
db = sqlite3.connect('library.db')
db.execute('CREATE TABLE authors(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL)')
db.execute('CREATE TABLE book_authors(book_id INTEGER, author_id INTEGER, position INTEGER, PRIMARY KEY(book_id, author_id))')
for book, names in db.execute('SELECT id, authors FROM books').fetchall():
    for position, name in enumerate(filter(None, map(str.strip, names.split(';'))), 1):
        db.execute('INSERT OR IGNORE INTO authors(name) VALUES (?)', (name,))
        db.execute('INSERT INTO book_authors SELECT ?, id, ? FROM authors WHERE name=?', (book, position, name))
db.execute('ALTER TABLE books DROP COLUMN authors')
db.commit()"""),
    [
        {"kind": "sqlite", "path": "library.db", "rows": [[1, "Notes"], [2, "Machines"], [5, "Anonymous"], [9, "Both"]],
         "query": "SELECT * FROM books ORDER BY id"},
        {"kind": "sqlite", "path": "library.db", "rows": [["Ada Lovelace"], ["Alan Turing"], ["Grace Hopper"]],
         "query": "SELECT name FROM authors ORDER BY name"},
        {"kind": "sqlite", "path": "library.db",
         "rows": [[1, "Ada Lovelace", 1], [2, "Alan Turing", 1], [2, "Grace Hopper", 2], [9, "Grace Hopper", 1],
                  [9, "Ada Lovelace", 2], [9, "Alan Turing", 3]],
         "query": "SELECT book_id, name, position FROM book_authors JOIN authors ON authors.id = author_id ORDER BY book_id, position"},
        {"kind": "sqlite", "path": "library.db", "rows": [["book_id"], ["author_id"]],
         "query": "SELECT name FROM pragma_table_info('book_authors') WHERE pk ORDER BY pk"},
    ],
    setup="""sqlite3 library.db "CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT NOT NULL, authors TEXT NOT NULL);
INSERT INTO books VALUES (1,'Notes','Ada Lovelace'),(2,'Machines','Alan Turing; Grace Hopper'),(5,'Anonymous',''),
(9,'Both','Grace Hopper;Ada Lovelace ; Alan Turing')"
""",
    packages=("sqlite3",),
)  # fmt: skip

DRAFTS = {
    "quoted-csv": QUOTED_CSV, "binary-records": BINARY_RECORDS, "layers": LAYERS, "links": LINKS, "ledger": LEDGER,
    "subnets": SUBNETS, "migration": MIGRATION,
}  # fmt: skip
