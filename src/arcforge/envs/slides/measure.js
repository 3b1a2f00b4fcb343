// Runs inside a rendered slide (the page's own scripts never do) and returns plain numbers: see rendering.py for the fields.
// `before` reads the page as it is; `after` shows all that is cut off, then takes away everything that only stretches.
(phase) => {
  const MOST = 1500;
  // Markup hides properties of the document and of forms behind elements of that name (`<form name=createRange>`, `<input name=style>`).
  // The page has no scripts, so the prototypes are the browser's own: everything of a node is read through them.
  const getter = (holder, name) => { const { get } = Object.getOwnPropertyDescriptor(holder.prototype, name); return (object) => get.call(object); };
  const method = (holder, name) => { const own = holder.prototype[name]; return (object, ...given) => own.apply(object, given); };
  const body = getter(Document, "body")(document), root = getter(Document, "documentElement")(document);
  const createTreeWalker = method(Document, "createTreeWalker"), createRange = method(Document, "createRange");
  const elementsFromPoint = method(Document, "elementsFromPoint"), parentOf = getter(Node, "parentElement"), contains = method(Node, "contains");
  const tag = getter(Element, "localName"), idOf = getter(Element, "id"), classesOf = getter(Element, "classList"), zoomOf = getter(Element, "currentCSSZoom");
  const rectOf = method(Element, "getBoundingClientRect"), attribute = method(Element, "getAttribute"), below = method(Element, "querySelectorAll");
  const checkVisibility = method(Element, "checkVisibility"), textContent = getter(Node, "textContent"), screenMatrix = method(SVGGraphicsElement, "getScreenCTM");
  const offsetTop = getter(HTMLElement, "offsetTop"), offsetLeft = getter(HTMLElement, "offsetLeft");
  const styled = [HTMLElement, SVGElement, MathMLElement].map((holder) => [holder, getter(holder, "style")]);
  const svgOf = getter(SVGElement, "ownerSVGElement"), ownerSvg = (element) => (element instanceof SVGElement ? svgOf(element) : null);
  const all = [...method(Document, "querySelectorAll")(document, "body, body *")].slice(0, MOST);
  const force = (element, property, value) => styled.forEach(([holder, own]) => { if (element instanceof holder) own(element).setProperty(property, value, "important"); });
  const box = (r) => [r.x + scrollX, r.y + scrollY, r.width, r.height];
  const styles = new Map();
  const style = (element) => styles.get(element) || styles.set(element, getComputedStyle(element)).get(element);
  const GRAPHICS = new Set(["img", "svg", "canvas", "video", "hr", "input", "progress", "meter"]);
  const label = (element) => {
    const own = (e) => tag(e) + (idOf(e) ? "#" + idOf(e) : classesOf(e).length ? "." + classesOf(e)[0] : "");
    const parent = parentOf(element);
    return parent && element !== body ? own(parent) + ">" + own(element) : own(element);
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
    if (ownerSvg(element)) return (s.fill !== "none" || s.stroke !== "none") && !["g", "defs", "text", "tspan", "title", "desc"].includes(tag(element));
    const bordered = ["Top", "Right", "Bottom", "Left"].some((side) => parseFloat(s[`border${side}Width`]) > 0 && alpha(s[`border${side}Color`]) > 0);
    return alpha(s.backgroundColor) > 0 || s.backgroundImage !== "none" || bordered;
  };
  // How opaque the strongest thing is that an element paints itself.
  const paintAlpha = (element) => {
    const s = style(element);
    if (ownerSvg(element)) return Math.max(alpha(s.fill) * parseFloat(s.fillOpacity), alpha(s.stroke) * parseFloat(s.strokeOpacity));
    if (GRAPHICS.has(tag(element)) || s.backgroundImage !== "none") return 1;
    const borders = ["Top", "Right", "Bottom", "Left"].map((side) => (parseFloat(s[`border${side}Width`]) > 0 ? alpha(s[`border${side}Color`]) : 0));
    return Math.max(alpha(s.backgroundColor), ...borders);
  };
  const covers = (element) => {
    const s = style(element);
    return tag(element) === "img" || tag(element) === "video" || (!ownerSvg(element) && (alpha(s.backgroundColor) > 0.5 || s.backgroundImage !== "none")) ||
      (ownerSvg(element) && paints(element) && s.fill !== "none" && parseFloat(s.fillOpacity) > 0.5);
  };
  const shown = (element) => checkVisibility(element, { visibilityProperty: true });
  const opacity = (element) => {
    let product = 1;
    for (let e = element; e; e = parentOf(e)) product *= parseFloat(style(e).opacity);
    return product;
  };
  // How much transforms, `scale` and `zoom` of the ancestors magnify a length.
  const magnification = (element) => {
    if (ownerSvg(element)) {
      const m = element instanceof SVGGraphicsElement && screenMatrix(element);
      return m ? Math.sqrt(Math.abs(m.a * m.d - m.b * m.c)) : 1;
    }
    let factor = zoomOf(element) || 1;
    for (let e = element; e; e = parentOf(e)) {
      const s = style(e);
      if (s.transform !== "none") { const m = new DOMMatrix(s.transform); factor *= Math.sqrt(Math.abs(m.a * m.d - m.b * m.c)); }
      if (s.scale !== "none") { const n = s.scale.split(" ").map(parseFloat); factor *= Math.sqrt(Math.abs(n[0] * (n[1] ?? n[0]))); }
    }
    return factor;
  };
  const textNodes = () => {
    const found = [], walker = createTreeWalker(document, body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && found.length < MOST) {
      const node = walker.currentNode, parent = parentOf(node);
      if (!node.data.trim() || !parent || ["script", "style", "noscript", "template", "title", "desc"].includes(tag(parent))) continue;
      found.push(node);
    }
    return found;
  };
  const rects = (node) => {
    const range = createRange(document);
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
    for (let e = element; e && e !== root; e = parentOf(e)) {
      const s = style(e);
      if (s.overflowX === "visible" && s.overflowY === "visible") continue;
      if (s.display === "inline") continue;
      const [x, y, w, h] = box(rectOf(e)), far = 1e6;
      rest = meet(rest, [s.overflowX === "visible" ? -far : x, s.overflowY === "visible" ? -far : y, s.overflowX === "visible" ? 2 * far : w, s.overflowY === "visible" ? 2 * far : h]);
    }
    return rest;
  };
  const seen = (element, x, y) => {
    for (const over of elementsFromPoint(document, x, y)) {
      if (over === element || contains(element, over) || contains(over, element)) return true;
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
    while (e !== body && style(e).display.startsWith("inline") && style(e).display === "inline") e = parentOf(e);
    return e;
  };
  const card = (element) => {
    for (let e = element; e && e !== body; e = parentOf(e)) if (!ownerSvg(e) && paints(e) && tag(e) !== "svg") return e;
    return null;
  };
  const area = (list) => list.reduce((sum, r) => sum + r[2] * r[3], 0);
  const hasText = (element) => textContent(element).trim() !== "" && textNodes.cache.some((n) => contains(element, n));
  textNodes.cache = textNodes();

  const before = () => {
    all.forEach((e) => force(e, "pointer-events", "auto"));
    const index = new Map(all.map((e, i) => [e, i]));
    const texts = textNodes.cache.map((node) => {
      const e = parentOf(node), found = shown(e) ? rects(node) : [], list = found.map(box), s = style(e), holder = card(e);
      const whole = area(list);
      return {
        text: node.data.replace(/\s+/g, " ").trim(), element: label(e), tag: tag(e), block: index.get(block(e)) ?? -1, rects: list,
        size: parseFloat(s.fontSize) * magnification(e), weight: parseFloat(s.fontWeight) || 400,
        opacity: opacity(e) * alpha(ownerSvg(e) ? s.fill : s.color) * (ownerSvg(e) ? parseFloat(s.fillOpacity) : 1), visible: visibleShare(e, found),
        clipped: whole ? 1 - area(list.map((r) => unclipped(e, r))) / whole : 0,
        card: holder ? box(rectOf(holder)) : null,
      };
    });
    const boxes = all.filter((e) => e !== body && shown(e) && paints(e)).map((e) => ({
      rect: box(rectOf(e)), has_text: hasText(e), opacity: opacity(e) * paintAlpha(e), visible: visibleShare(e, [rectOf(e)]),
    })).filter((b) => b.rect[2] > 0 && b.rect[3] > 0);
    const images = all.filter((e) => tag(e) === "img").map((e) => ({
      element: label(e), source: attribute(e, "src") || "", rect: box(rectOf(e)), natural: [e.naturalWidth, e.naturalHeight], fit: style(e).objectFit,
      opacity: shown(e) ? opacity(e) : 0, visible: shown(e) ? visibleShare(e, [rectOf(e)]) : 0,
    }));
    return { texts, boxes, images, body: box(rectOf(body)) };
  };

  // What fills a page: text that is not said twice, pictures, and graphics without text up to a size that a bar may have.
  const graphics = () => all.filter((e) => e !== body && shown(e) && !hasText(e) && !(parentOf(e) && parentOf(e) !== body && !hasText(parentOf(e))) &&
    (paints(e) || [...below(e, "*")].some(paints)));
  const bar = 0.06 * 1280 * 720, picture = 0.6 * 1280 * 720;
  const leaves = () => {
    const said = new Set();
    const fresh = (node) => {
      const text = node.data.replace(/\s+/g, " ").trim().toLowerCase();
      return text.length < 20 || (!said.has(text) && said.add(text));
    };
    const small = (e) => { const r = rectOf(e); return r.width > 0 && r.height > 0 && r.width * r.height < (GRAPHICS.has(tag(e)) ? picture : bar); };
    return [
      ...textNodes.cache.filter((n) => shown(parentOf(n)) && fresh(n)).flatMap((n) => rects(n).map(box)),
      ...graphics().filter(small).map((e) => box(rectOf(e))),
    ];
  };
  const after = () => {
    for (const e of all) {
      force(e, "overflow", "visible"); force(e, "clip-path", "none"); force(e, "contain", "none");
      force(e, "-webkit-line-clamp", "none"); force(e, "max-height", "none"); force(e, "text-overflow", "clip");
    }
    force(root, "overflow", "visible");
    styles.clear();
    // Decoration may bleed over the edge; text, pictures and boxes around text may not.
    const strict = [
      ...textNodes.cache.filter((n) => shown(parentOf(n))).flatMap((n) => rects(n).map((r) => ({ element: label(parentOf(n)), rect: box(r) }))),
      ...all.filter((e) => e !== body && shown(e) && !(ownerSvg(e)) && paints(e) && (["img", "canvas", "video"].includes(tag(e)) || hasText(e)))
        .map((e) => ({ element: label(e), rect: box(rectOf(e)) })),
    ].filter((b) => b.rect[2] > 0 && b.rect[3] > 0);
    const whole = box(rectOf(body));
    return { content: strict, body: whole, natural: natural() };
  };
  const natural = () => {
    const pinned = graphics(), inside = (e) => pinned.some((p) => p !== e && contains(p, e));
    const sizes = all.map((e) => [e, rectOf(e), e instanceof HTMLElement ? offsetTop(e) : null, e instanceof HTMLElement ? offsetLeft(e) : null]);
    const kinds = new Map(all.map((e) => { const s = style(e); return [e, { display: s.display, position: s.position, size: parseFloat(s.fontSize), values: ["padding-top", "padding-bottom", "margin-top", "margin-bottom", "row-gap", "line-height"].map((p) => [p, parseFloat(s.getPropertyValue(p))]) }]; }));
    for (const [e, r, top, left] of sizes) {
      const kind = kinds.get(e);
      if (ownerSvg(e) || inside(e) || kind.display === "inline" || kind.display === "contents" || kind.display === "none") continue;
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
