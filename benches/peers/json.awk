# Writes what a run measured in the form of `benches/results/mod.rs`:
#
#   awk -F '\t' -f json.awk facts.tsv results.tsv
#
# The first file has a name and a value on each line: what stands before the rows. The second has the values that
# `run` keeps. Each row and peer is a row here, `yield/2/tokio`; `values` is their number, `rounds` has them in the order
# of rounds, `ratio` is the median of the ratios to greenling in the same round. What could not be measured is left out.

function quoted(text) {
    gsub(/\\/, "&&", text)
    gsub(/"/, "\\\"", text)
    gsub(/[[:cntrl:]]/, " ", text)
    return "\"" text "\""
}

# Puts the numbers of a list into `sorted`, and returns how many they are.
function sort(list, n, i, j, x) {
    n = split(list, sorted, " ")
    for (i = 2; i <= n; i++) {
        x = sorted[i] + 0
        for (j = i - 1; j > 0 && sorted[j] + 0 > x; j--) sorted[j + 1] = sorted[j]
        sorted[j + 1] = x
    }
    return n
}

# The middle of `sorted`, of two their mean: as in the table.
function middle(n) { return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2 }

BEGIN { printf "{\n  \"schema\": 1,\n" }

FNR == NR {
    is_number = $1 ~ /^(cores|load|others|steal)$/
    printf "  %s: %s,\n", quoted($1), is_number ? $2 + 0 : quoted($2)
    next
}

$4 != "-" {
    cell = $2 SUBSEP $3
    if (!(cell in values)) { cells[++count] = cell; name[cell] = $2 "/" $3; row[cell] = $2; unit[cell] = $6 }
    values[cell] = values[cell] " " $4
    basis[$1 SUBSEP cell] = $5
    rounds[cell] = rounds[cell] " " $1
}

END {
    print "  \"rows\": ["
    for (i = 1; i <= count; i++) {
        cell = cells[i]
        ratios = ""
        n = split(rounds[cell], turn, " ")
        for (k = 1; k <= n; k++) {
            mine = basis[turn[k] SUBSEP row[cell] SUBSEP "greenling"]
            if (mine > 0) ratios = ratios " " basis[turn[k] SUBSEP cell] / mine
        }
        has_ratio = sort(ratios)
        ratio = has_ratio ? sprintf(", \"ratio\": %.6g", middle(has_ratio)) : ""
        n = sort(values[cell])
        low = sorted[int((n - 1) / 4) + 1]
        high = sorted[int((3 * n - 1) / 4) + 1]
        all = values[cell]
        gsub(/^ /, "", all)
        gsub(/ /, ", ", all)
        printf "    { \"name\": %s, \"unit\": %s, \"median\": %.10g, \"low\": %.10g, \"high\": %.10g, \"values\": %d",
            quoted(name[cell]), quoted(unit[cell]), middle(n), low, high, n
        printf "%s, \"rounds\": [%s] }%s\n", ratio, all, i < count ? "," : ""
    }
    print "  ]\n}"
}
