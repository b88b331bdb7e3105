"""What a run will cost and what it can show, before it begins: workload, cost, memory, power, licences, advice."""
