"""`python -m anomalib_dpclip` is `dpclip`."""

from anomalib_dpclip.cli import main

if __name__ == "__main__":
    main()
