"""Real database servers for the tests: from the environment, else throwaway ones started from installed binaries."""
