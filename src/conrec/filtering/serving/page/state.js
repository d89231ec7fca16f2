// What is looked at: user, threshold and list; the address keeps them behind the #.

const SOURCES = ["anchor", "popular", "search", "pasted"];
const SHARED_ITEMS = 50; // pasted IDs that the address carries

/** threshold: null is as calibrated. source: "anchor", "popular", "search", "pasted", or "" for what there is. */
export const state = { user: "", threshold: null, source: "", search: "", pasted: [] };

/** Take the state from the address. */
export function fromAddress() {
  const held = new URLSearchParams(location.hash.slice(1));
  const number = held.has("threshold") ? Number(held.get("threshold")) : NaN;
  state.user = held.get("user") ?? "";
  state.threshold = number >= -1 && number <= 1 ? number : null;
  state.source = SOURCES.includes(held.get("candidates")) ? held.get("candidates") : "";
  state.search = held.get("search") ?? "";
  state.pasted = held.getAll("item");
}

/** Put the state into the address; `push`: so that the way back leads to the one before. */
export function toAddress(push) {
  const held = new URLSearchParams();
  if (state.user) held.set("user", state.user);
  if (state.threshold !== null) held.set("threshold", String(state.threshold));
  if (state.source) held.set("candidates", state.source);
  if (state.source === "search" && state.search) held.set("search", state.search);
  if (state.source === "pasted" && state.pasted.length <= SHARED_ITEMS) for (const one of state.pasted) held.append("item", one);
  const hash = held.size ? `#${held}` : location.pathname;
  if (push && location.hash !== hash) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
  document.title = state.user ? `${state.user} – what the filter drops – conrec` : "What the filter drops – conrec";
}
