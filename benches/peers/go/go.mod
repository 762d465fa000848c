module greenling-peers

go 1.18
