/**
 * JSON, readable: one text, with its keys and values in elements of their own.
 */

import { element } from "../ui/elements.js";

/** Characters beyond which a document is shown without colours: they cost an element each. */
const MAX_COLOURED = 60_000;

/** A key, a string, a number or a word; everything else stays plain text. */
const TOKEN = /("(?:\\.|[^"\\])*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;

/** @param {unknown} value @returns {DocumentFragment} */
export function readable(value) {
  const text = JSON.stringify(value, null, 2) ?? "";
  const fragment = document.createDocumentFragment();
  if (text.length > MAX_COLOURED) {
    fragment.append(text);
    return fragment;
  }
  let end = 0;
  for (const match of text.matchAll(TOKEN)) {
    const [, quoted, colon, number, word] = match;
    const kind = colon ? "key" : quoted ? "string" : number ? "number" : "word";
    const token = quoted ?? number ?? word ?? "";
    fragment.append(text.slice(end, match.index), element("span", kind, token));
    end = match.index + token.length;
  }
  fragment.append(text.slice(end));
  return fragment;
}
