"""What a run would bring and cost, before it is paid for."""
