// HTTP/1.1 as far as the services need it: ../src/http.rs, ../src/hello.rs and ../src/files.rs, once more.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const longestHead = 8 * 1024
const mostHeaders = 64

const (
	plain    = ""
	told     = "connection: keep-alive\r\n"
	closes   = "connection: close\r\n"
	bad      = "400 Bad Request"
	tooLarge = "431 Request Header Fields Too Large"
	chunked  = "501 Not Implemented"
)

type request struct {
	method string
	path   string
	keep   string
	body   int64
}

// requests answers requests by a function, which says whether the connection goes on.
func requests(in *bufio.Reader, out *bufio.Writer, answer func(*bufio.Writer, *request) bool) {
	for {
		r, refusal, ok := head(in, out)
		if refusal != "" {
			writeHead(out, refusal, 0, closes)
			return
		}
		if !ok || !answer(out, &r) || r.keep == closes {
			return
		}
		if r.body > 0 {
			out.Flush()
			if _, err := io.CopyN(io.Discard, in, r.body); err != nil {
				return
			}
		}
	}
}

// line returns a line without its end. Before a read that may wait, the answers go out.
func line(in *bufio.Reader, out *bufio.Writer) ([]byte, bool) {
	if there, _ := in.Peek(in.Buffered()); bytes.IndexByte(there, '\n') < 0 && out.Flush() != nil {
		return nil, false
	}
	whole, err := in.ReadSlice('\n')
	if err != nil {
		return whole, false
	}
	return bytes.TrimSuffix(whole[:len(whole)-1], []byte{'\r'}), true
}

// head reads the head of a request: what it asks for, or why it is refused, or that there is none.
func head(in *bufio.Reader, out *bufio.Writer) (r request, refusal string, ok bool) {
	first, ok := line(in, out)
	for ok && len(first) == 0 {
		first, ok = line(in, out)
	}
	if !ok {
		if len(first) >= longestHead {
			return r, tooLarge, false
		}
		return r, "", false
	}
	length := len(first) + 2
	words := strings.Split(string(first), " ")
	if length > longestHead {
		return r, tooLarge, false
	}
	if len(words) != 3 || !isToken(words[0]) || words[1] == "" || (words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0") {
		return r, bad, false
	}
	r.method, r.path = words[0], words[1]
	if words[2] == "HTTP/1.0" {
		r.keep = closes
	}
	r.body = -1
	for count := 0; ; count++ {
		field, ok := line(in, out)
		length += len(field) + 2
		if length > longestHead || len(field) >= longestHead || (len(field) > 0 && count == mostHeaders) {
			return r, tooLarge, false
		}
		if !ok {
			return r, "", false
		}
		if len(field) == 0 {
			if r.body < 0 {
				r.body = 0
			}
			return r, "", true
		}
		if refusal := r.header(field, words[2]); refusal != "" {
			return r, refusal, false
		}
	}
}

// header takes a header in; three matter.
func (r *request) header(field []byte, version string) string {
	colon := bytes.IndexByte(field, ':')
	if colon <= 0 || !isToken(string(field[:colon])) {
		return bad
	}
	name, value := field[:colon], bytes.TrimSpace(field[colon+1:])
	switch len(name) {
	case len("connection"):
		if strings.EqualFold(string(name), "connection") {
			for _, word := range strings.Split(string(value), ",") {
				word = strings.TrimSpace(word)
				if strings.EqualFold(word, "close") {
					r.keep = closes
				} else if version == "HTTP/1.0" && strings.EqualFold(word, "keep-alive") {
					r.keep = told
				}
			}
		}
	case len("content-length"):
		if strings.EqualFold(string(name), "content-length") {
			length, err := strconv.ParseUint(string(value), 10, 62)
			if err != nil || (r.body >= 0 && r.body != int64(length)) {
				return bad
			}
			r.body = int64(length)
		}
	case len("transfer-encoding"):
		if strings.EqualFold(string(name), "transfer-encoding") {
			return chunked
		}
	}
	return ""
}

// isToken says whether a word may be a method or the name of a header.
func isToken(word string) bool {
	for i := 0; i < len(word); i++ {
		c := word[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return word != ""
}

func writeHead(out *bufio.Writer, status string, length int64, keep string) {
	kind := ""
	if status == "200 OK" {
		kind = "content-type: text/plain\r\n"
	}
	fmt.Fprintf(out, "HTTP/1.1 %s\r\n%s%scontent-length: %d\r\n\r\n", status, kind, keep, length)
}

const answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\n" + greeting

func hello(out *bufio.Writer, r *request) bool {
	if r.keep == plain && r.method != "HEAD" {
		_, err := out.WriteString(answer)
		return err == nil
	}
	writeHead(out, "200 OK", int64(len(greeting)), r.keep)
	if r.method != "HEAD" {
		out.WriteString(greeting)
	}
	return true
}

// file sends a file: io.Copy from a file to a connection is sendfile.
func file(out *bufio.Writer, conn *net.TCPConn, folder string, r *request) bool {
	if r.method != "GET" && r.method != "HEAD" {
		writeHead(out, "405 Method Not Allowed", 0, r.keep)
		return true
	}
	found, length := open(folder, r.path)
	if found == nil {
		writeHead(out, "404 Not Found", 0, r.keep)
		return true
	}
	defer found.Close()
	writeHead(out, "200 OK", length, r.keep)
	if r.method == "HEAD" {
		return true
	}
	if out.Flush() != nil {
		return false
	}
	sent, err := io.Copy(conn, found)
	return err == nil && sent == length
}

// open opens a file of the folder; nil if there is none.
func open(folder, path string) (*os.File, int64) {
	name := strings.TrimPrefix(path, "/")
	if name == path || name == "" || name[0] == '.' {
		return nil, 0
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return nil, 0
		}
	}
	found, err := os.Open(filepath.Join(folder, name))
	if err != nil {
		return nil, 0
	}
	about, err := found.Stat()
	if err != nil || !about.Mode().IsRegular() {
		found.Close()
		return nil, 0
	}
	return found, about.Size()
}
