"""Files, whatever is in them: written whole, loaded without running code, downloaded, labelled with what measured them."""
