// Questions to the service: the token, and errors in plain words.

const KEY = "conrec-token";
let remembered = "";

/** What went wrong. kind: "stopped" (no answer), "token", "refused" (the question), "busy" or "broken" (the service). */
export class ServiceError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** The token of this tab; sessionStorage forgets it when the tab is closed. */
export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? remembered;
  } catch {
    return remembered; // a browser that stores nothing
  }
}

export function setToken(value) {
  remembered = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // then it lasts until the page is loaded again
  }
}

const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

/** An address below the page's own, so that a proxy may put the service under any path. */
export function address(path, query = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== undefined) found.set(name, value);
  return found.size ? `${path}?${found}` : path;
}

async function answered(path, options) {
  try {
    return await fetch(path, { ...options, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("stopped", "The service does not answer.");
  }
}

async function inWords(response) {
  let said = "";
  try {
    const { found, where, expected, mend } = (await response.json()).error;
    said = [where, found].filter(Boolean).join(": ") + (expected ? `; expected ${expected}` : "") + ".";
    if (mend) said += ` ${mend}`;
  } catch {
    // no words of ours: a proxy, perhaps
  }
  return said;
}

/** The JSON that the service answers. Throws ServiceError, or AbortError where `signal` said so. */
export async function ask(path, { query, body, signal } = {}) {
  const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const type = body === undefined ? {} : { "Content-Type": "application/json" };
  const response = await answered(address(path, query), { ...post, signal, headers: { ...headers(), ...type } });
  if (response.ok) {
    try {
      return await response.json();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError("stopped", "The answer of the service broke off.");
    }
  }
  const words = await inWords(response);
  if (response.status === 401 || response.status === 403) throw new ServiceError("token", words);
  if (response.status === 429 || response.status === 503 || response.status === 504)
    throw new ServiceError("busy", words || "The service has too much to do just now.");
  if (response.status < 500) throw new ServiceError("refused", words || `The service refused this (${response.status}).`);
  throw new ServiceError("broken", words || `The service failed (${response.status}); its log says more.`);
}

/** Whether the service answers at all. */
export async function alive() {
  try {
    return (await answered("health", {})).ok;
  } catch {
    return false;
  }
}

/** Where an <img> finds a picture: its own address, or, where a token is needed, a copy fetched with it; null: none. */
export async function pictureSource(itemId) {
  const path = address("v1/page/picture", { item_id: itemId });
  if (!token()) return path;
  const response = await answered(path, { headers: headers() });
  return response.ok ? URL.createObjectURL(await response.blob()) : null;
}
