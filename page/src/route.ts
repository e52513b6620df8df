/** The address after "#": a view and its settings, so that every view and item has a URL. */
import { useEffect, useState } from "preact/hooks";
import { site } from "./data";

export interface Route {
  view: string;
  get(name: string): string;
}

export type Settings = Record<string, string | number | null | undefined>;

function parsed(hash: string): Route {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const settings = new URLSearchParams(query);
  return { view: path || "overview", get: (name) => settings.get(name) ?? "" };
}

/** The number of the experiment `x` of an address: a leaderboard names its sequences, whose numbers change when others are added. */
export const numberOf = (route: Route) => (site ? site.sequences.findIndex((one) => one.key === route.get("x")) : Number(route.get("x")) || 0);

/** What an address has as `x` for the experiment of this number. */
export const named = (number: number) => (site ? site.sequences[number].key : number || null);

/** The address of a view; empty settings are left out. */
export function href(view: string, settings: Settings = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(settings)) {
    if (value !== "" && value !== null && value !== undefined) query.set(name, String(value));
  }
  const text = query.toString();
  return `#/${view}${text ? `?${text}` : ""}`;
}

/** The settings of the present view with changes. */
export function changed(changes: Settings): string {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  return href(path || "overview", { ...Object.fromEntries(new URLSearchParams(query)), ...changes });
}

/** Changes settings without a new entry in the browser's history. */
export function replace(changes: Settings): void {
  history.replaceState(null, "", changed(changes));
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const look = () => setHash(location.hash);
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);
  return parsed(hash);
}
