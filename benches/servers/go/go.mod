module greenling.example/servers

go 1.19
