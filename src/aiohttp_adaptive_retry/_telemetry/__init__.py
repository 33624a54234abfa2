"""What operators see: metrics, spans of attempts, and the snapshot."""
