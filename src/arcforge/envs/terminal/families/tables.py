"""Rows and documents: CSV, JSON, joins, SQLite."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

from arcforge.envs.terminal.draft import Draft, csv_text
from arcforge.envs.terminal.families.pools import CITIES, GOODS, moment, person

PYTHON = "python3 - <<'PYTHON'\n{}\nPYTHON"


def _orders(rng: random.Random, count: int) -> list[list[Any]]:
    """order, city, product, quantity, cents, date."""
    goods, cities = rng.sample(GOODS, 6), rng.sample(CITIES, 5)
    return [
        [
            1000 + i,
            rng.choice(cities),
            rng.choice(goods),
            rng.randint(1, 20),
            rng.randint(100, 9999),
            f"{moment(rng):%Y-%m-%d}",
        ]
        for i in range(count)
    ]


ORDER_COLUMNS = ["order", "city", "product", "quantity", "cents", "date"]


def csv_table(rng: random.Random, level: int) -> Draft:
    """A sum by one or two columns, with filters; at the highest level with broken rows to leave out."""
    rows = _orders(rng, 40 * level)
    keys = rng.sample(["city", "product"], 1 if level == 1 else 2)
    least = rng.randint(2, 8) if level > 1 else 1
    places = [ORDER_COLUMNS.index(key) for key in keys]
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row[3] >= least:
            total = sums[tuple(row[place] for place in places)]
            total[0], total[1] = total[0] + row[3], total[1] + row[3] * row[4]
    wanted = [[*key, *map(str, total)] for key, total in sorted(sums.items())]
    broken = [[row[0] + 5000, row[1], row[2], "", row[4], row[5]] for row in rng.sample(rows, 4)] if level == 3 else []
    given = [*rows, *broken]
    rng.shuffle(given)
    told = (
        f"/app/orders.csv has the columns {', '.join(ORDER_COLUMNS)}; `cents` is the price of one piece. Write /app/summary.csv "
        f"with the header `{','.join(keys)},quantity,revenue` and one row for each {' and '.join(keys)} that occurs, sorted by "
        f"{' and then '.join(keys)}: the summed quantity and the summed quantity times cents, as whole numbers."
    )
    told += f" Count only orders of a quantity of at least {least}." if least > 1 else ""
    told += " Leave out rows whose quantity is empty." if broken else ""
    solve = f"""import csv, collections
total = collections.defaultdict(lambda: [0, 0])
for row in csv.DictReader(open('orders.csv')):
    if row['quantity'] and int(row['quantity']) >= {least}:
        entry = total[tuple(row[k] for k in {keys!r})]
        entry[0] += int(row['quantity']); entry[1] += int(row['quantity']) * int(row['cents'])
with open('summary.csv', 'w', newline='') as file:
    out = csv.writer(file); out.writerow({[*keys, "quantity", "revenue"]!r})
    out.writerows([*k, *v] for k, v in sorted(total.items()))"""
    checks = [{"kind": "csv", "path": "summary.csv", "rows": [[*keys, "quantity", "revenue"], *wanted]}]
    return Draft(told, PYTHON.format(solve), checks, {"orders.csv": csv_text([ORDER_COLUMNS, *given])})


def json_documents(rng: random.Random, level: int) -> Draft:
    """A list of nested documents grouped under a key, with a filter and, above level 1, a flat CSV too."""
    fields = ["city", "product"]
    group = rng.choice(fields)
    cut = rng.randint(300, 3000)
    documents = [
        {
            "id": row[0],
            "customer": {"name": person(rng), "city": row[1]},
            "item": {"product": row[2], "quantity": row[3], "cents": row[4]},
            "tags": rng.sample(["new", "gift", "express", "returned"], rng.randint(0, 3)),
        }
        for row in _orders(rng, 20 * level)
    ]
    kept = [d for d in documents if d["item"]["cents"] >= cut and (level < 3 or "returned" not in d["tags"])]
    place = ("customer", "city") if group == "city" else ("item", "product")
    grouped: dict[str, list[int]] = defaultdict(list)
    for document in kept:
        grouped[document[place[0]][place[1]]].append(document["id"])
    wanted = {key: sorted(ids) for key, ids in grouped.items()}
    rule = f"whose item.cents is at least {cut}" + (" and whose tags do not have `returned`" if level == 3 else "")
    told = (
        f"/app/orders.json is a list of orders. Consider those {rule}. Write /app/grouped.json: an object that maps every value "
        f"of `{'.'.join(place)}` among them to the list of the ids of its orders, ascending."
    )
    condition = f"d['item']['cents'] >= {cut}" + (" and 'returned' not in d['tags']" if level == 3 else "")
    solve = f"""import json, csv, collections
kept = [d for d in json.load(open('orders.json')) if {condition}]
groups = collections.defaultdict(list)
for d in kept: groups[d[{place[0]!r}][{place[1]!r}]].append(d['id'])
json.dump({{k: sorted(v) for k, v in groups.items()}}, open('grouped.json', 'w'))
"""
    checks: list[dict[str, Any]] = [{"kind": "json", "path": "grouped.json", "value": wanted}]
    if level > 1:
        told += (
            " Also write /app/flat.csv with the header `id,name,product,tags` and a row for each of these orders, by id; "
            "tags are sorted and joined by `|`."
        )
        rows = [[str(d["id"]), d["customer"]["name"], d["item"]["product"], "|".join(sorted(d["tags"]))] for d in kept]
        rows.sort(key=lambda row: int(row[0]))
        checks.append({"kind": "csv", "path": "flat.csv", "rows": [["id", "name", "product", "tags"], *rows]})
        solve += """out = csv.writer(open('flat.csv', 'w', newline=''))
out.writerow(['id', 'name', 'product', 'tags'])
for d in sorted(kept, key=lambda d: d['id']):
    out.writerow([d['id'], d['customer']['name'], d['item']['product'], '|'.join(sorted(d['tags']))])
"""
    return Draft(told, PYTHON.format(solve), checks, {"orders.json": json.dumps(documents, indent=2) + "\n"})


def join(rng: random.Random, level: int) -> Draft:
    """Two or three tables joined by a key, those without a partner told apart, sorted by two columns."""
    count = 15 * level
    people = {f"p{n:03d}": (person(rng), rng.choice(CITIES)) for n in rng.sample(range(900), count)}
    visits = [(rng.choice([*people, "p999"]), rng.randint(1, 500)) for _ in range(count * 2)]
    separator = rng.choice(["\t", ";", ","])
    descending = rng.random() < 0.5
    totals: dict[str, int] = defaultdict(int)
    for key, points in visits:
        totals[key] += points
    rows = [[people[key][0], people[key][1], str(points)] for key, points in totals.items() if key in people]
    rows.sort(key=lambda row: (-int(row[2]) if descending else int(row[2]), row[0]))
    named = {"\t": "a tab", ";": "a semicolon", ",": "a comma"}[separator]
    told = (
        f"/app/people.txt has lines `key{{s}}name{{s}}city`, /app/points.txt lines `key{{s}}points`, where {{s}} is {named}. Write "
        "/app/ranking.txt with a line `name{s}city{s}total` for each person with at least one line in points.txt: total is the "
        f"sum of the points, largest {'first' if descending else 'last'}; of equal totals the name decides, alphabetically."
    )
    checks: list[dict[str, Any]] = [{"kind": "text", "path": "ranking.txt", "text": csv_text(rows, separator)}]
    solve = f"""people = dict((k, (n, c)) for k, n, c in (l.rstrip('\\n').split({separator!r}) for l in open('people.txt')))
total = {{}}
for line in open('points.txt'):
    key, points = line.split({separator!r}); total[key] = total.get(key, 0) + int(points)
rows = [(people[k][0], people[k][1], v) for k, v in total.items() if k in people]
rows.sort(key=lambda r: ({"-" if descending else ""}r[2], r[0]))
open('ranking.txt', 'w').writelines({separator!r}.join(map(str, r)) + '\\n' for r in rows)
"""
    if level > 1:
        idle = sorted(key for key in people if key not in totals)
        told += " Write /app/idle.txt with the keys of the people that have no line in points.txt, sorted, one a line."
        checks.append({"kind": "text", "path": "idle.txt", "text": "".join(f"{key}\n" for key in idle)})
        solve += "open('idle.txt', 'w').writelines(k + '\\n' for k in sorted(people) if k not in total)\n"
    if level > 2:
        unknown = sum(key not in people for key, _ in visits)
        told += " Write the number of lines of points.txt whose key is not in people.txt to /app/unknown.txt."
        checks.append({"kind": "text", "path": "unknown.txt", "text": f"{unknown}\n"})
        solve += f"print(sum(l.split({separator!r})[0] not in people for l in open('points.txt')), file=open('unknown.txt', 'w'))\n"
    files = {
        "people.txt": csv_text([[key, *rest] for key, rest in people.items()], separator),
        "points.txt": csv_text([list(visit) for visit in visits], separator),
    }
    return Draft(told.replace("{s}", "<s>"), PYTHON.format(solve), checks, files)


def sqlite(rng: random.Random, level: int) -> Draft:
    """A query over a database made at build time, a correction in it, and above level 1 an index or a view."""
    rows = _orders(rng, 30 * level)
    cut = rng.randint(50, 200) * 100
    totals: dict[str, int] = defaultdict(int)
    for row in rows:
        totals[row[1]] += row[3] * row[4]
    rich = sorted(
        ((city, total) for city, total in totals.items() if total > cut), key=lambda pair: (-pair[1], pair[0])
    )
    old, new = rng.sample(sorted({row[2] for row in rows}), 1)[0], rng.choice(["widget", "gadget", "fitting"])
    told = (
        "/app/shop.db is an SQLite database with the table orders(id, city, product, quantity, cents, date).\n\n"
        f"1. Write /app/cities.csv, without a header: `city,revenue` for the cities whose revenue (the sum of quantity times "
        f"cents) is more than {cut}, highest revenue first, equal ones by city.\n2. In the database, rename the product `{old}` to "
        f"`{new}` in all orders."
    )
    query = f"SELECT city, SUM(quantity*cents) AS r FROM orders GROUP BY city HAVING r > {cut} ORDER BY r DESC, city"
    solve = f'sqlite3 -csv shop.db "{query}" > cities.csv\n'
    solve += f"sqlite3 shop.db \"UPDATE orders SET product='{new}' WHERE product='{old}'\"\n"
    after = sorted([row[0], row[1], new if row[2] == old else row[2], *row[3:]] for row in rows)
    checks: list[dict[str, Any]] = [
        {"kind": "csv", "path": "cities.csv", "rows": [[city, str(total)] for city, total in rich]},
        {"kind": "sqlite", "path": "shop.db", "query": "SELECT * FROM orders ORDER BY id", "rows": after},
    ]
    if level > 1:
        told += "\n3. Create a view `monthly(month, orders)`: each month as YYYY-MM with the number of its orders."
        solve += 'sqlite3 shop.db "CREATE VIEW monthly AS SELECT substr(date,1,7) AS month, COUNT(*) AS orders FROM orders GROUP BY 1"\n'
        months: dict[str, int] = defaultdict(int)
        for row in rows:
            months[row[5][:7]] += 1
        query = "SELECT month, orders FROM monthly ORDER BY month"
        checks.append(
            {"kind": "sqlite", "path": "shop.db", "query": query, "rows": [list(m) for m in sorted(months.items())]}
        )
    if level > 2:
        told += "\n4. Create an index named `by_city` on the column city."
        solve += "sqlite3 shop.db 'CREATE INDEX by_city ON orders(city)'\n"
        query = "SELECT name FROM pragma_index_info('by_city')"
        checks.append({"kind": "sqlite", "path": "shop.db", "query": query, "rows": [["city"]]})
    setup = """sqlite3 shop.db 'CREATE TABLE orders(id INTEGER PRIMARY KEY, city TEXT, product TEXT, quantity INTEGER, cents INTEGER, date TEXT)'
sqlite3 shop.db -cmd '.mode csv' '.import orders.csv orders'
rm orders.csv"""
    return Draft(told, solve, checks, {"orders.csv": csv_text(rows)}, setup, ("sqlite3",))
