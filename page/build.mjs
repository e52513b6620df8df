// Builds src/ into one script and one style sheet: node build.mjs [FOLDER]
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import path from "node:path";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? path.join(here, "../moextend/bench/report/page/assets"));
await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.tsx" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "ascii", // the script may stand inside a page of any encoding
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "inline",
  banner: { js: "/* Built from page/ of moextend; contains Preact (MIT). Change the source, then: make page */" },
});
