// Go with a goroutine for each connection, over bufio: the services of ../src, once more. And net/http, a whole HTTP
// server, as `net-http`.
//
//	PROGRAM hello | net-http | kv | files FOLDER
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Room for the longest head and the longest line; a line that fills it is refused.
const buffer = longestHead
const greeting = "Hello, world!"

// A conversation answers requests until the connection ends.
type conversation func(*bufio.Reader, *bufio.Writer, *net.TCPConn)

func main() {
	service, folder := "", ""
	if len(os.Args) > 1 {
		service = os.Args[1]
	}
	if len(os.Args) > 2 {
		folder = os.Args[2]
	}
	switch {
	case service == "hello":
		listen(func(in *bufio.Reader, out *bufio.Writer, _ *net.TCPConn) { requests(in, out, hello) })
	case service == "files" && folder != "":
		listen(func(in *bufio.Reader, out *bufio.Writer, conn *net.TCPConn) {
			requests(in, out, func(out *bufio.Writer, r *request) bool { return file(out, conn, folder, r) })
		})
	case service == "kv":
		store := newStore()
		listen(func(in *bufio.Reader, out *bufio.Writer, _ *net.TCPConn) { commands(in, out, store) })
	case service == "net-http":
		listener := bind()
		http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Date"] = nil
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, greeting)
		}))
	default:
		fmt.Fprintln(os.Stderr, "usage: PROGRAM hello | net-http | kv | files FOLDER")
		os.Exit(2)
	}
}

// bind listens on a free port, and says which.
func bind() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening on", listener.Addr())
	return listener
}

func listen(talk conversation) {
	listener := bind()
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func(conn *net.TCPConn) {
			defer conn.Close()
			// Go sets TCP_NODELAY by itself.
			out := bufio.NewWriterSize(conn, buffer)
			talk(bufio.NewReaderSize(conn, buffer), out, conn)
			out.Flush()
			// What was not read would make the kernel take back what was said last. So read, but not for long.
			conn.CloseWrite()
			conn.SetReadDeadline(time.Now().Add(time.Second))
			io.CopyN(io.Discard, conn, 64*1024)
		}(conn.(*net.TCPConn))
	}
}
