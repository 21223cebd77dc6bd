/* Texts of models as elements: formulas, bold type and code. Text is only ever inserted as text, never as markup. */

const FORMULA = /\\\[([\s\S]+?)\\\]|\$\$([\s\S]+?)\$\$|\\\(([\s\S]+?)\\\)|\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)/g;
const STYLED = /```\w*\n([\s\S]*?)\n?```|\*\*(.+?)\*\*|`([^`\n]+)`/g;
const LONGEST = 1500;
const MATHML = "http://www.w3.org/1998/Math/MathML";

export function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

export function bar(share) {
  const outer = make("span", undefined, "bar"), inner = make("i");
  inner.style.width = `${100 * share}%`;
  outer.append(inner);
  return outer;
}

/* A text in one line without the markers that only programs read, for places where it is not typeset. */
export function plain(text) {
  return unboxed(text, inner => inner).replace(/^\s*(?:####|###|##|#)\s+/, "").replace(/\\[()[\]]|\$\$|\*\*|```\w*/g, "")
    .replace(/\s+/g, " ").trim();
}

export function cut(text, longest = LONGEST) {
  const left = text.length - longest;
  return left > 0 ? `${text.slice(0, longest)} … ${left.toLocaleString("en")} more characters` : text;
}

/* `text` with each \boxed{...} replaced by what `shown` makes of its content. */
function unboxed(text, shown) {
  let rest = text, done = "";
  for (;;) {
    const found = /\\(?:boxed|fbox)\s*\{/.exec(rest);
    if (!found) return done + rest;
    let end = found.index + found[0].length, depth = 1;
    for (; end < rest.length && depth; end++) {
      if (rest[end] === "\\") end++;
      else depth += {"{": 1, "}": -1}[rest[end]] ?? 0;
    }
    const inner = rest.slice(found.index + found[0].length, depth ? rest.length : end - 1);
    done += rest.slice(0, found.index) + shown(inner);
    rest = rest.slice(end);
  }
}

const isMath = text => /\\[A-Za-z]|[\^_]/.test(text);

/* A paragraph of a solution. `typeset` turns its formulas into MathML afterwards. */
export function paragraph(text, tag = "div") {
  const element = make(tag), source = cut(boxless(text).replace(/^\s*#+\s+(.*)$/gm, "**$1**"), 6000);
  let last = 0;
  for (const found of source.matchAll(FORMULA)) {
    const display = Boolean(found[1] ?? found[2]), before = source.slice(last, found.index);
    styled(element, display ? before.trimEnd() : before);
    element.append(formula(found.slice(1).find(Boolean).trim(), display));
    last = found.index + found[0].length;
    if (display) last += /^\s*/.exec(source.slice(last))[0].length;
  }
  styled(element, source.slice(last));
  return element;
}

/* `text` without boxes: what stands in one outside of a formula is one itself, or bold. */
function boxless(text) {
  const outside = text.replace(FORMULA, found => unboxed(found, inner => inner));
  return unboxed(outside, inner => isMath(inner) ? `\\(${inner}\\)` : `**${inner.trim()}**`);
}

function styled(element, text) {
  let last = 0;
  for (const [whole, block, bold, code] of text.matchAll(STYLED)) {
    const at = text.indexOf(whole, last);
    const [tag, inner] = block !== undefined ? ["pre", block] : bold !== undefined ? ["strong", bold] : ["code", code];
    element.append(text.slice(last, at), make(tag, inner));
    last = at + whole.length;
  }
  element.append(text.slice(last));
}

/* A formula that waits for `typeset`; until then its TeX is shown. */
function formula(tex, display) {
  const element = make("span", tex, display ? "tex display" : "tex");
  element.dataset.tex = tex;
  return element;
}

/* An answer, which may be a formula. */
export function answerOf(text) {
  const element = make("span");
  if (isMath(text) && !/\s\w+\s\w+/.test(text)) element.append(formula(text, false));
  else element.textContent = text;
  return element;
}

const known = new Map();

/* Replace the formulas below `root`. The server translates TeX; what it cannot read stays as it is. */
export async function typeset(root, call) {
  const spans = [...root.querySelectorAll("span.tex")];
  const wanted = [...new Map(spans.map(span => [key(span), span])).values()].filter(span => !known.has(key(span)));
  if (wanted.length) {
    const formulas = wanted.slice(0, 200).filter(span => span.dataset.tex.length <= 2000)
      .map(span => ({tex: span.dataset.tex, display: span.classList.contains("display")}));
    try {
      const response = await call("/page/formulas", {method: "POST", body: JSON.stringify({formulas})});
      (await response.json()).forEach((tree, i) => known.set(`${formulas[i].display} ${formulas[i].tex}`, tree));
    } catch {
      return;  // the TeX is readable, too
    }
  }
  for (const span of spans) {
    const tree = known.get(key(span));
    if (tree) span.replaceChildren(built(tree));
  }
}

const key = span => `${span.classList.contains("display")} ${span.dataset.tex}`;

function built(node) {
  if (typeof node === "string") return node;
  const [tag, attributes, children] = node, element = document.createElementNS(MATHML, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map(built));
  return element;
}
