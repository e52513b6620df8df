/** Small parts of many views: choices, copying, and values that are loaded. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";

interface ChoiceProps {
  label: string;
  value: string | number;
  options: [value: string | number, text: string][];
  onChange: (value: string) => void;
}

export function Choice({ label, value, options, onChange }: ChoiceProps) {
  return (
    <label class="choice">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([key, text]) => (
          <option value={key}>{text}</option>
        ))}
      </select>
    </label>
  );
}

/** Words to look for; "/" moves the focus there. */
export function Search({ label, about, value, onChange }: { label: string; about: string; value: string; onChange: (value: string) => void }) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const key = (event: KeyboardEvent) => {
      if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test((event.target as HTMLElement).tagName)) return;
      event.preventDefault();
      input.current?.focus();
    };
    window.addEventListener("keydown", key);
    return () => window.removeEventListener("keydown", key);
  }, []);
  return (
    <label class="choice grow">
      <span>{label}</span>
      <input type="search" ref={input} value={value} placeholder={`${about}   ( / )`} onInput={(event) => onChange(event.currentTarget.value)} />
    </label>
  );
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await copied(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return (
    <button type="button" class="small" onClick={copy} aria-live="polite">
      {done ? "Copied" : label}
    </button>
  );
}

async function copied(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // pages on a disk may have no clipboard
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** What a promise brings, undefined before; an error is shown where the value belongs. */
export function useLoaded<T>(load: () => Promise<T>, key: string): { value?: T; error?: string } {
  const [found, setFound] = useState<{ key: string; value?: T; error?: string }>({ key: "" });
  useEffect(() => {
    let current = true;
    load().then(
      (value) => current && setFound({ key, value }),
      (error: unknown) => current && setFound({ key, error: String(error) }),
    );
    return () => {
      current = false;
    };
  }, [key]);
  return found.key === key ? found : {};
}

/** Whether the window is as narrow as a phone. */
export function useNarrow(): boolean {
  const query = useMemo(() => window.matchMedia("(max-width: 720px)"), []);
  const [narrow, setNarrow] = useState(query.matches);
  useEffect(() => {
    const look = () => setNarrow(query.matches);
    query.addEventListener("change", look);
    return () => query.removeEventListener("change", look);
  }, [query]);
  return narrow;
}

export function Waiting({ title, error }: { title?: string; error?: string }) {
  return (
    <>
      {title && <h1>{title}</h1>}
      <p class={error ? "warning" : "muted"}>{error ?? "Loading…"}</p>
    </>
  );
}

/** A view that has nothing to show, and why. */
export function Empty({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <>
      <h1>{title}</h1>
      <p>{children}</p>
    </>
  );
}

export function Section({ id, title, children }: { id: string; title: string; children: ComponentChildren }) {
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {children}
    </section>
  );
}

/** Names and values; those without a value are left out. */
export function Facts({ pairs }: { pairs: [string, ComponentChildren][] }) {
  return (
    <dl>
      {pairs
        .filter(([, value]) => value)
        .map(([name, value]) => (
          <>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </>
        ))}
    </dl>
  );
}
