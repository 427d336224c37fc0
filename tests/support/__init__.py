"""What several tests share: fabricated runs, processes, servers, a failing disk."""
