// The one place where text becomes elements. What comes in was made by the server's text.py, which lets nothing through
// that can act; Trusted Types refuses every other way.
const policy = globalThis.trustedTypes?.createPolicy("palate", { createHTML: (text) => text });

/** Show `html`, which the server has cleaned, inside `element`. */
export function fill(element, html) {
  element.innerHTML = policy ? policy.createHTML(html) : html;
}
