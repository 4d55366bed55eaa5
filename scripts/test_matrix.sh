#!/usr/bin/env bash
# Test the built wheel, not the checkout, in a throw-away environment for each set of versions.
#
#   scripts/test_matrix.sh                              # oldest, anomalib-extra and newest, all tests
#   scripts/test_matrix.sh oldest                       # one of them
#   scripts/test_matrix.sh "open_clip_torch==2.24.0 torch==2.11.0"
#   TESTS=tests/unit scripts/test_matrix.sh             # some tests
set -euo pipefail
cd "$(dirname "$0")/.."

requirements_of() {
    case $1 in
        # The lower bounds of pyproject.toml; a test holds them to it.
        oldest) echo "anomalib==2.7 torch==2.10 torchvision==0.25 open_clip_torch==2.24 lightning==2.6 torchmetrics==1.8.2" ;;
        # What anomalib's own extra pins.
        anomalib-extra) echo "anomalib[clip]" ;;
        newest) echo "anomalib torch torchvision open_clip_torch lightning torchmetrics" ;;
        anomalib-main) echo "git+https://github.com/open-edge-platform/anomalib" ;;
        *) echo "$1" ;;
    esac
}

sets=("$@")
if [ $# -eq 0 ]; then
    sets=(oldest anomalib-extra newest)
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/build"
"$folder/build/bin/pip" install --quiet build
"$folder/build/bin/python" -m build --wheel --outdir "$folder" .
wheel=$(ls "$folder"/*.whl)

# Everything but the sources: whatever a test imports then comes from the wheel.
mkdir "$folder/checkout"
git ls-files -z --cached --others --exclude-standard -- . ':!src' | xargs -0 cp --parents -t "$folder/checkout"

for name in "${sets[@]}"; do
    read -ra requirements <<<"$(requirements_of "$name")"
    echo "== ${requirements[*]}"
    environment="$folder/environment"
    rm -rf "$environment"
    python3 -m venv "$environment"
    python="$environment/bin/python"
    "$python" -m pip install --quiet "$wheel[onnx,openvino]" "${requirements[@]}" pytest pytest-xdist hypothesis
    "$python" -m pip list 2>/dev/null | grep -iE '^(anomalib|lightning|open_clip|open-clip|torch) *|^open.clip.torch'
    (
        cd "$folder/checkout"
        # shellcheck disable=SC2086  # several tests may be named
        HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$python" -m pytest -q -n 2 --dist loadfile -o testpaths=tests ${TESTS:-tests}
    )

    echo "-- without anomalib"
    "$python" -m pip uninstall --quiet --yes anomalib
    (cd "$folder" && "$python" -c "import torch")

    echo "-- uninstalled"
    "$python" -m pip uninstall --quiet --yes anomalib-dpclip
    (cd "$folder" && "$python" -c "import torch")
    left=$(find "$environment" -iname '*dpclip*')
    if [ -n "$left" ]; then
        echo "pip uninstall has left behind: $left" >&2
        exit 1
    fi
done
echo "All passed."
