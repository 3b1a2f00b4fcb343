"""Slides for the tests of the slides environment: an honest one, and what is done to raise its score."""

LINES = (
    "The north harbour handled 1,240 ships, a tenth more than in the year before the new quay",
    "Waiting fell from 31 hours to 18 because pilots are now booked a full day ahead of arrival",
    "Two cranes stood still in March; repairs were paid by the maker and are covered until June",
    "Rail took 46% of all containers inland, and the night train to Alder runs full since May",
    "Noise complaints halved after the ferries moved to the outer pier on weekdays and Sundays",
    "Next we electrify berth 7, train 12 crane drivers, and publish the tide of trucks by hour",
    "Shore power now serves 9 berths and saves the town an estimated 4,300 tonnes of carbon a year",
    "The fish market moves to hall C, where cold storage is nearer and the trucks have more room",
    "A second customs desk opens at six in the morning so that early lorries do not queue outside",
)
CSS = """
* { box-sizing: border-box; }
body { margin: 0; width: 1280px; height: 720px; padding: 48px 64px; background-color: #f4f6f8; color: #1c2530;
  font-family: "Liberation Sans", Arial, Helvetica, sans-serif; font-size: 24px; line-height: 1.35; }
h1 { margin: 0 0 24px 0; font-size: 42px; line-height: 1.2; }
.row { padding: 14px 24px; margin: 0 0 16px 0; background-color: #ffffff; border-left: 8px solid #1f6f8b; }
"""


def slide(lines=6, css="", body="", heading="The harbour in one year"):
    """A heading and `lines` rows of text in flow; `css` comes after the style sheet, `body` after the rows."""
    rows = "\n".join(f'<p class="row">{line}</p>' for line in LINES[:lines])
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Harbour</title>\n<style>{CSS}{css}</style>\n'
        f"</head>\n<body>\n<h1>{heading}</h1>\n{rows}\n{body}</body>\n</html>\n"
    )
