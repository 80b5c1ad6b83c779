/** Elements, made and filled. Text reaches the page as text alone: nothing here reads HTML. */

/**
 * An element: `class`, `text`, `data` {name: value} and `on` {event: listener} are said so, everything else is an attribute.
 * Children that are null, undefined or false are left out; strings become text.
 */
export function el(tag, { class: classes, text, data, on, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  if (text !== undefined) node.textContent = text;
  Object.assign(node.dataset, data);
  for (const [name, listener] of Object.entries(on ?? {})) node.addEventListener(name, listener);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Replace what an element holds. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Somebody's name: isolated, so that right-to-left marks in it turn nothing else around, and told whole on hover. */
export function named(name, classes = "") {
  return el("bdi", { class: `name ${classes}`.trim(), title: name.length > 24 ? name.slice(0, 300) : undefined, text: name });
}

/** A bar of some share of its place; the number stands beside it in words. */
export function bar(share, classes) {
  const inner = el("span", { class: `fill ${classes}` });
  setShare(inner, share);
  return el("span", { class: "track", "aria-hidden": "true" }, inner);
}

/** How much of its place a bar or segment takes; through CSSOM, which a strict Content-Security-Policy allows. */
export function setShare(node, share) {
  node.style.setProperty("--share", `${(100 * Math.min(1, Math.max(0, share || 0))).toFixed(2)}%`);
}

/** One call of `flush` in the next animation frame, however often it is asked for. */
export function oncePerFrame(flush) {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    const run = () => {
      isAsked = false;
      flush();
    };
    if (document.hidden) setTimeout(run, 250); // a page that nobody sees gets no frames
    else requestAnimationFrame(run);
  };
}

/** What went wrong, for people: the server's own line where it has one. */
export function problem(error) {
  return el("p", { class: "notice bad", role: "alert", text: error?.message || String(error) });
}
