#!/usr/bin/env bash
# Puts the table and picture of a committed record into the README: scripts/refresh-readme.sh results/<device>/<date>/records.jsonl
# Without an argument the record that the README names now is read again.
set -euo pipefail
cd "$(dirname "$0")/.."
record=${1:-$(sed -n '/results:begin/,/results:end/s/^<!-- from \(.*\) -->$/\1/p' README.md)}
test -f "$record" || { echo "there is no record '$record'; name one under results/" >&2; exit 2; }
table=$(target/release/rooftrace show --markdown "$record")
target/release/rooftrace show --json --svg "${record%records.jsonl}roofline.svg" "$record" >/dev/null
block=$(printf '<!-- from %s -->\n\n%s\n\n![roofline](%sroofline.svg)\n' "$record" "$table" "${record%records.jsonl}")
python3 - "$block" <<'PY'
import sys, re
text = open("README.md").read()
begin, end = "<!-- results:begin -->", "<!-- results:end -->"
head, rest = text.split(begin, 1)
tail = rest.split(end, 1)[1]
open("README.md", "w").write(f"{head}{begin}\n{sys.argv[1]}\n{end}{tail}")
PY
