// Pieces of the page. Text from data becomes text nodes and nothing else; no function here takes HTML.

import { pictureSource } from "./api.js";

/** An element: `attributes` (false and null are left out), then children, where strings are text. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  made.append(...children.filter((one) => one !== null && one !== undefined && one !== ""));
  return made;
}

export const byId = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone: "UTC" });

export const count = (number) => whole.format(number);
export const share = (number) => (number === null || number === undefined ? "–" : percent.format(number));
export const similarity = (number) => (number === null || number === undefined ? "–" : number.toFixed(3));
/** The day of unix seconds; what no calendar has is shown as the number. */
export const when = (seconds) => {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : day.format(date);
};
export const several = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

/** What an item is called: its title, or its ID where it has none; a semantic ID that no item has is named itself. */
export const named = (card) => card.title?.trim() || card.item_id?.trim() || card.sid || "(an ID of spaces)";

function initials(card) {
  const words = named(card).match(/[\p{L}\p{N}]+/gu) ?? [];
  // Articles and years say little; where there is nothing else, they have to do.
  const telling = words.filter((word) => !/^(the|a|an|\p{N}+)$/iu.test(word));
  return (telling.length ? telling : words).slice(0, 2).map((word) => [...word][0].toUpperCase()).join("") || "?";
}

function tone(text) {
  let sum = 0;
  for (const one of text) sum = (sum * 31 + one.codePointAt(0)) % 8191;
  return sum % 6;
}

const waiting = new WeakMap();
const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      show(target, waiting.get(target));
    }
  },
  { rootMargin: "200px" },
);

async function show(frame, itemId) {
  let source = null;
  try {
    source = await pictureSource(itemId);
  } catch {
    // the initials stay
  }
  if (!source) return;
  const image = el("img", { alt: "", decoding: "async" });
  const done = () => source.startsWith("blob:") && URL.revokeObjectURL(source);
  image.addEventListener("load", () => {
    frame.append(image);
    done();
  });
  image.addEventListener("error", done);
  image.src = source;
}

/** A card's picture, loaded when it comes into view; its initials until then, and where there is none. */
export function picture(card) {
  const frame = el("span", { class: `pic tone${tone(named(card))}`, "aria-hidden": "true" }, initials(card));
  if (card.picture) {
    waiting.set(frame, card.item_id);
    seen.observe(frame);
  }
  return frame;
}

/** Title and what stands below it. */
export function heading(card, ...more) {
  const id = card.title?.trim() ? el("span", { class: "id" }, card.item_id) : null;
  const below = [...(card.categories ?? [])].join(", ");
  return el("div", { class: "name" }, el("span", { class: "title", dir: "auto", title: named(card) }, named(card)), ...more, el("p", { class: "quiet small" }, id, id && below ? " · " : "", below));
}
