// Goroutines on one thread (GOMAXPROCS=1), by the rows and rules of ../src/lib.rs: see there for what is printed when.
// Ping-pong is two unbuffered channels, join is a WaitGroup, a yield is runtime.Gosched.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	batch  = 1000
	buffer = 16 * 1024
	chunk  = 10000
)

// gate is where the goroutines of a yield row begin together and end together. Plain fields: one runs at a time, and
// each Gosched is a call that the compiler cannot see through.
type gate struct {
	arrived, left, rounds uint64
	open                  bool
	start, end            time.Time
}

func (g *gate) pass() {
	g.arrived++
	for !g.open {
		runtime.Gosched()
	}
	for i := uint64(0); i < g.rounds; i++ {
		runtime.Gosched()
	}
	g.left--
	if g.left == 0 {
		g.end = time.Now()
	}
	for g.left > 0 {
		runtime.Gosched()
	}
}

func yields(threads, rounds uint64) time.Duration {
	g := &gate{rounds: rounds, left: threads}
	var all sync.WaitGroup
	all.Add(int(threads))
	for i := uint64(0); i < threads; i++ {
		go func() {
			g.pass()
			all.Done()
		}()
	}
	for g.arrived < threads {
		runtime.Gosched()
	}
	g.start = time.Now()
	g.open = true
	all.Wait()
	return g.end.Sub(g.start)
}

func pingPong(n uint64) time.Duration {
	toPong, toPing := make(chan uint64), make(chan uint64)
	go func() {
		for value := range toPong {
			toPing <- value + 1
		}
	}()
	start := time.Now()
	value := uint64(0)
	for i := uint64(0); i < n; i++ {
		toPong <- value
		value = <-toPing
	}
	took := time.Since(start)
	close(toPong)
	if value != n {
		panic("a message was lost")
	}
	return took
}

func spawnJoin(batches uint64) time.Duration {
	var results [batch]uint64
	start := time.Now()
	for ; batches > 0; batches-- {
		var all sync.WaitGroup
		all.Add(batch)
		for i := uint64(0); i < batch; i++ {
			go func(i uint64) {
				results[i] = i
				all.Done()
			}(i)
		}
		all.Wait()
	}
	return time.Since(start)
}

// settle is nanoseconds per unit of f, of which one call of f(n) does n * per. The last run counts; those before it
// warm up.
func settle(budget time.Duration, per uint64, f func(uint64) time.Duration) float64 {
	units := 2000 / per
	if units < 20 {
		units = 20
	}
	for warm := false; ; warm = true {
		took := f(units)
		if warm && took >= budget {
			return float64(took.Nanoseconds()) / float64(units*per)
		}
		missing := 1.1 * float64(budget) / float64(took+1)
		if missing > 16 {
			missing = 16
		}
		if missing > 1 {
			if missing < 1.5 {
				missing = 1.5
			}
			units = uint64(float64(units)*missing) + 1
		}
	}
}

// field is one in kB of a file of /proc, in bytes.
func field(file, name string) uint64 {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, name) {
			kilobytes, _ := strconv.ParseUint(strings.Fields(line[len(name):])[0], 10, 64)
			return kilobytes * 1024
		}
	}
	panic(name)
}

// used is the bytes of this process in memory, its page tables included.
func used() uint64 {
	return field("/proc/self/status", "VmRSS:") + field("/proc/self/status", "VmPTE:")
}

func memory(wanted uint64) {
	most := field("/proc/meminfo", "MemAvailable:") / 3
	before := used()
	never := make(chan struct{})
	limit := ""
	parked := uint64(0)
	for parked < wanted {
		for i := 0; i < chunk && parked < wanted; i++ {
			parked++
			go func() { <-never }()
		}
		runtime.Gosched()
		if used()-before > most {
			limit = " a third of the free memory is used up"
			break
		}
	}
	// All have had their turn: they wait.
	for i := 0; i < 100; i++ {
		runtime.Gosched()
	}
	fmt.Printf("memory %d bytes/task %d%s\n", (used()-before)/parked, parked, limit)
}

func echo() {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		// net sets TCP_NODELAY by itself.
		client, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go serve(client)
	}
}

func serve(client net.Conn) {
	defer client.Close()
	bytes := make([]byte, buffer)
	for {
		length, err := client.Read(bytes)
		if err != nil {
			return
		}
		if _, err := client.Write(bytes[:length]); err != nil {
			return
		}
	}
}

func main() {
	runtime.GOMAXPROCS(1)
	row, number := "", uint64(0)
	if len(os.Args) > 1 {
		row = os.Args[1]
	}
	if len(os.Args) > 2 {
		number, _ = strconv.ParseUint(os.Args[2], 10, 64)
	}
	budget := time.Duration(number) * time.Millisecond
	switch {
	case row == "rows":
		fmt.Println("yield/2\nyield/1000\nyield/100000\nping-pong\nchannel\nspawn-join\nmemory\necho")
	case row == "echo":
		echo()
	case number == 0:
		fmt.Fprintln(os.Stderr, "usage: PROGRAM rows | ROW MILLISECONDS | memory TASKS | echo")
		os.Exit(2)
	case row == "memory":
		memory(number)
	case row == "ping-pong" || row == "channel":
		fmt.Printf("%s %.2f ns/round-trip\n", row, settle(budget, 1, pingPong))
	case row == "spawn-join":
		fmt.Printf("%s %.2f ns/thread\n", row, settle(budget, batch, spawnJoin))
	case strings.HasPrefix(row, "yield/"):
		threads, err := strconv.ParseUint(row[len("yield/"):], 10, 64)
		if err != nil || threads == 0 {
			os.Exit(2)
		}
		f := func(rounds uint64) time.Duration { return yields(threads, rounds) }
		fmt.Printf("%s %.2f ns/yield\n", row, settle(budget, threads, f))
	default:
		fmt.Println(row, "- it has no such thing")
	}
}
