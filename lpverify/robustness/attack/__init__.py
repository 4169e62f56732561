"""Looking for counterexamples in balls of norm 1, 2 and infinity."""
