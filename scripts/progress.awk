# Reads what "go build -v" prints, each package as it is compiled, and says how far it is:
# awk -v about=1900 -f progress.awk. Other lines are errors.
function tell() { printf "  %d modules downloaded, %d packages compiled of about %d\n", modules, packages, about; fflush() }
/^go: downloading / { if (++modules % 100 == 0) tell(); next }
/^[A-Za-z0-9._~\/-]+$/ { if (++packages % 100 == 0) tell(); next }
{ print; fflush() }
