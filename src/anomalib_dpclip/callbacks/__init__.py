"""What watches a run: reports, folders of results, checks that stop it in time."""
