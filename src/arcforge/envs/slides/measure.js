// Runs inside a rendered slide (the page's own scripts never do) and returns plain numbers: see rendering.py for the fields.
// `before` reads the page as it is; `after` shows all that is cut off, then takes away everything that only stretches.
(phase) => {
  const MOST = 3000;
  const all = [...document.querySelectorAll("body, body *")].slice(0, MOST);
  const force = (element, property, value) => element.style && element.style.setProperty(property, value, "important");
  const box = (r) => [r.x + scrollX, r.y + scrollY, r.width, r.height];
  const styles = new Map();
  const style = (element) => styles.get(element) || styles.set(element, getComputedStyle(element)).get(element);
  const GRAPHICS = new Set(["img", "svg", "canvas", "video", "hr", "input", "progress", "meter"]);
  const tag = (element) => element.localName;
  const label = (element) => {
    const own = (e) => tag(e) + (e.id ? "#" + e.id : e.classList.length ? "." + e.classList[0] : "");
    const parent = element.parentElement;
    return parent && element !== document.body ? own(parent) + ">" + own(element) : own(element);
  };
  const alpha = (colour) => {
    if (colour === "transparent" || colour === "none") return 0;
    // Computed colours are rgb(r, g, b), rgba(r, g, b, a), or "space(... / a)", whose space may have digits of its own.
    const found = colour.match(/^rgba\(.*,\s*([\d.e+-]+)\)$/) || colour.match(/\/\s*([\d.e+-]+|none)\s*\)$/);
    return found ? parseFloat(found[1]) || 0 : 1;
  };
  const paints = (element) => {
    const s = style(element);
    if (GRAPHICS.has(tag(element))) return true;
    if (element.ownerSVGElement) return (s.fill !== "none" || s.stroke !== "none") && !["g", "defs", "text", "tspan", "title", "desc"].includes(tag(element));
    const bordered = ["Top", "Right", "Bottom", "Left"].some((side) => parseFloat(s[`border${side}Width`]) > 0 && alpha(s[`border${side}Color`]) > 0);
    return alpha(s.backgroundColor) > 0 || s.backgroundImage !== "none" || bordered;
  };
  // How opaque the strongest thing is that an element paints itself.
  const paintAlpha = (element) => {
    const s = style(element);
    if (element.ownerSVGElement) return Math.max(alpha(s.fill) * parseFloat(s.fillOpacity), alpha(s.stroke) * parseFloat(s.strokeOpacity));
    if (GRAPHICS.has(tag(element)) || s.backgroundImage !== "none") return 1;
    const borders = ["Top", "Right", "Bottom", "Left"].map((side) => (parseFloat(s[`border${side}Width`]) > 0 ? alpha(s[`border${side}Color`]) : 0));
    return Math.max(alpha(s.backgroundColor), ...borders);
  };
  const covers = (element) => {
    const s = style(element);
    return tag(element) === "img" || tag(element) === "video" || (!element.ownerSVGElement && (alpha(s.backgroundColor) > 0.5 || s.backgroundImage !== "none")) ||
      (element.ownerSVGElement && paints(element) && s.fill !== "none" && parseFloat(s.fillOpacity) > 0.5);
  };
  const shown = (element) => element.checkVisibility({ visibilityProperty: true });
  const opacity = (element) => {
    let product = 1;
    for (let e = element; e; e = e.parentElement) product *= parseFloat(style(e).opacity);
    return product;
  };
  // How much transforms, `scale` and `zoom` of the ancestors magnify a length.
  const magnification = (element) => {
    if (element.ownerSVGElement) {
      const m = element.getScreenCTM && element.getScreenCTM();
      return m ? Math.sqrt(Math.abs(m.a * m.d - m.b * m.c)) : 1;
    }
    let factor = element.currentCSSZoom || 1;
    for (let e = element; e; e = e.parentElement) {
      const s = style(e);
      if (s.transform !== "none") { const m = new DOMMatrix(s.transform); factor *= Math.sqrt(Math.abs(m.a * m.d - m.b * m.c)); }
      if (s.scale !== "none") { const n = s.scale.split(" ").map(parseFloat); factor *= Math.sqrt(Math.abs(n[0] * (n[1] ?? n[0]))); }
    }
    return factor;
  };
  const textNodes = () => {
    const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && found.length < MOST) {
      const node = walker.currentNode, parent = node.parentElement;
      if (!node.data.trim() || !parent || ["script", "style", "noscript", "template", "title", "desc"].includes(tag(parent))) continue;
      found.push(node);
    }
    return found;
  };
  const rects = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return [...range.getClientRects()].filter((r) => r.width > 0 && r.height > 0);
  };
  const meet = (a, b) => {
    const x = Math.max(a[0], b[0]), y = Math.max(a[1], b[1]);
    return [x, y, Math.max(0, Math.min(a[0] + a[2], b[0] + b[2]) - x), Math.max(0, Math.min(a[1] + a[3], b[1] + b[3]) - y)];
  };
  // The part of a rectangle that no ancestor's overflow cuts off.
  const unclipped = (element, rect) => {
    let rest = rect;
    for (let e = element; e && e !== document.documentElement; e = e.parentElement) {
      const s = style(e);
      if (s.overflowX === "visible" && s.overflowY === "visible") continue;
      if (s.display === "inline") continue;
      const [x, y, w, h] = box(e.getBoundingClientRect()), far = 1e6;
      rest = meet(rest, [s.overflowX === "visible" ? -far : x, s.overflowY === "visible" ? -far : y, s.overflowX === "visible" ? 2 * far : w, s.overflowY === "visible" ? 2 * far : h]);
    }
    return rest;
  };
  const seen = (element, x, y) => {
    for (const over of document.elementsFromPoint(x, y)) {
      if (over === element || element.contains(over) || over.contains(element)) return true;
      if (covers(over) && opacity(over) > 0.3) return false;
    }
    return false;
  };
  const visibleShare = (element, list) => {
    let points = 0, good = 0;
    for (const r of list.slice(0, 8)) {
      for (const part of [0.1, 0.5, 0.9]) { points += 1; good += seen(element, r.x + r.width * part, r.y + r.height / 2) ? 1 : 0; }
    }
    return points ? good / points : 0;
  };
  const block = (element) => {
    let e = element;
    while (e !== document.body && style(e).display.startsWith("inline") && style(e).display === "inline") e = e.parentElement;
    return e;
  };
  const card = (element) => {
    for (let e = element; e && e !== document.body; e = e.parentElement) if (!e.ownerSVGElement && paints(e) && tag(e) !== "svg") return e;
    return null;
  };
  const area = (list) => list.reduce((sum, r) => sum + r[2] * r[3], 0);
  const hasText = (element) => element.textContent.trim() !== "" && textNodes.cache.some((n) => element.contains(n));
  textNodes.cache = textNodes();

  const before = () => {
    all.forEach((e) => force(e, "pointer-events", "auto"));
    const index = new Map(all.map((e, i) => [e, i]));
    const texts = textNodes.cache.map((node) => {
      const e = node.parentElement, found = shown(e) ? rects(node) : [], list = found.map(box), s = style(e), holder = card(e);
      const whole = area(list);
      return {
        text: node.data.replace(/\s+/g, " ").trim(), element: label(e), tag: tag(e), block: index.get(block(e)) ?? -1, rects: list,
        size: parseFloat(s.fontSize) * magnification(e), weight: parseFloat(s.fontWeight) || 400,
        opacity: opacity(e) * alpha(e.ownerSVGElement ? s.fill : s.color) * (e.ownerSVGElement ? parseFloat(s.fillOpacity) : 1), visible: visibleShare(e, found),
        clipped: whole ? 1 - area(list.map((r) => unclipped(e, r))) / whole : 0,
        card: holder ? box(holder.getBoundingClientRect()) : null,
      };
    });
    const boxes = all.filter((e) => e !== document.body && shown(e) && paints(e)).map((e) => ({
      rect: box(e.getBoundingClientRect()), has_text: hasText(e), opacity: opacity(e) * paintAlpha(e), visible: visibleShare(e, [e.getBoundingClientRect()]),
    })).filter((b) => b.rect[2] > 0 && b.rect[3] > 0);
    const images = all.filter((e) => tag(e) === "img").map((e) => ({
      element: label(e), source: e.getAttribute("src") || "", rect: box(e.getBoundingClientRect()), natural: [e.naturalWidth, e.naturalHeight], fit: style(e).objectFit,
      opacity: shown(e) ? opacity(e) : 0, visible: shown(e) ? visibleShare(e, [e.getBoundingClientRect()]) : 0,
    }));
    return { texts, boxes, images, body: box(document.body.getBoundingClientRect()) };
  };

  // What fills a page: text that is not said twice, pictures, and graphics without text up to a size that a bar may have.
  const graphics = () => all.filter((e) => e !== document.body && shown(e) && !hasText(e) && !(e.parentElement && e.parentElement !== document.body && !hasText(e.parentElement)) &&
    (paints(e) || [...e.querySelectorAll("*")].some(paints)));
  const bar = 0.06 * 1280 * 720, picture = 0.6 * 1280 * 720;
  const leaves = () => {
    const said = new Set();
    const fresh = (node) => {
      const text = node.data.replace(/\s+/g, " ").trim().toLowerCase();
      return text.length < 20 || (!said.has(text) && said.add(text));
    };
    const small = (e) => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0 && r.width * r.height < (GRAPHICS.has(tag(e)) ? picture : bar); };
    return [
      ...textNodes.cache.filter((n) => shown(n.parentElement) && fresh(n)).flatMap((n) => rects(n).map(box)),
      ...graphics().filter(small).map((e) => box(e.getBoundingClientRect())),
    ];
  };
  const after = () => {
    for (const e of all) {
      force(e, "overflow", "visible"); force(e, "clip-path", "none"); force(e, "contain", "none");
      force(e, "-webkit-line-clamp", "none"); force(e, "max-height", "none"); force(e, "text-overflow", "clip");
    }
    force(document.documentElement, "overflow", "visible");
    styles.clear();
    // Decoration may bleed over the edge; text, pictures and boxes around text may not.
    const strict = [
      ...textNodes.cache.filter((n) => shown(n.parentElement)).flatMap((n) => rects(n).map((r) => ({ element: label(n.parentElement), rect: box(r) }))),
      ...all.filter((e) => e !== document.body && shown(e) && !(e.ownerSVGElement) && paints(e) && (["img", "canvas", "video"].includes(tag(e)) || hasText(e)))
        .map((e) => ({ element: label(e), rect: box(e.getBoundingClientRect()) })),
    ].filter((b) => b.rect[2] > 0 && b.rect[3] > 0);
    const body = box(document.body.getBoundingClientRect());
    return { content: strict, body, natural: natural() };
  };
  const natural = () => {
    const pinned = graphics(), inside = (e) => pinned.some((p) => p !== e && p.contains(e));
    const sizes = all.map((e) => [e, e.getBoundingClientRect(), e.offsetTop, e.offsetLeft]);
    const kinds = new Map(all.map((e) => { const s = style(e); return [e, { display: s.display, position: s.position, size: parseFloat(s.fontSize), values: ["padding-top", "padding-bottom", "margin-top", "margin-bottom", "row-gap", "line-height"].map((p) => [p, parseFloat(s.getPropertyValue(p))]) }]; }));
    for (const [e, r, top, left] of sizes) {
      const kind = kinds.get(e);
      if (e.ownerSVGElement || inside(e) || kind.display === "inline" || kind.display === "contents" || kind.display === "none") continue;
      const table = kind.display.startsWith("table-");
      if (!table) { force(e, "box-sizing", "border-box"); force(e, "width", r.width + "px"); force(e, "flex", "0 0 auto"); }
      if (["absolute", "fixed"].includes(kind.position)) { force(e, "top", top + "px"); force(e, "left", left + "px"); force(e, "bottom", "auto"); force(e, "right", "auto"); force(e, "margin", "0"); }
      if (pinned.includes(e)) { force(e, "height", r.height + "px"); continue; }
      force(e, "min-height", "0"); force(e, "aspect-ratio", "auto");
      if (tag(e) !== "svg") force(e, "height", "auto"); else force(e, "height", r.height + "px");
      const most = { "padding-top": 32, "padding-bottom": 32, "margin-top": 24, "margin-bottom": 24, "row-gap": 24, "line-height": 1.5 * kind.size };
      if (tag(e) !== "svg") for (const [property, value] of kind.values) if (value > most[property]) force(e, property, most[property] + "px");
      for (const property of ["justify-content", "align-content"]) if (kind.display.includes("flex") || kind.display.includes("grid")) force(e, property, "flex-start");
      if (kind.display.includes("grid")) { force(e, "grid-template-rows", "auto"); force(e, "grid-auto-rows", "auto"); }
    }
    styles.clear();
    return leaves();
  };
  return phase === "before" ? before() : after();
}
