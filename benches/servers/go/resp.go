// RESP and the store behind it: ../src/resp.rs and ../src/store.rs, once more.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

const longestLine = 8 * 1024
const longestString = 1024 * 1024
const mostStrings = 1024

type store struct {
	lock   sync.Mutex
	values map[string][]byte
}

func newStore() *store { return &store{values: map[string][]byte{}} }

// A problem is what a client is told before the connection ends.
type problem string

// commands obeys commands until the connection ends.
func commands(in *bufio.Reader, out *bufio.Writer, store *store) {
	words := make([][]byte, 0, 8)
	for {
		var why problem
		var ok bool
		words, why, ok = command(in, out, words[:0])
		if why != "" {
			fmt.Fprintf(out, "-ERR Protocol error: %s\r\n", why)
			return
		}
		if !ok {
			return
		}
		if len(words) > 0 {
			store.obey(out, words)
		}
	}
}

// command reads the words of one command, as an array or as a line.
func command(in *bufio.Reader, out *bufio.Writer, words [][]byte) ([][]byte, problem, bool) {
	if in.Buffered() == 0 && out.Flush() != nil {
		return words, "", false
	}
	first, err := in.Peek(1)
	if err != nil {
		return words, "", false
	}
	if first[0] != '*' {
		text, ok := line(in, out)
		if len(text) >= longestLine {
			return words, "too big inline request", false
		}
		for _, word := range bytes.Fields(text) {
			words = append(words, append([]byte(nil), word...))
		}
		return words, "", ok
	}
	count, why, ok := number(in, out, "invalid multibulk length")
	if ok && count > mostStrings {
		why = "invalid multibulk length"
	}
	if !ok || why != "" {
		return words, why, false
	}
	for ; count > 0; count-- {
		word, why, ok := bulk(in, out)
		if !ok {
			return words, why, false
		}
		words = append(words, word)
	}
	return words, "", true
}

// bulk reads one string. Memory is its own, since the buffer moves on.
func bulk(in *bufio.Reader, out *bufio.Writer) ([]byte, problem, bool) {
	if in.Buffered() == 0 && out.Flush() != nil {
		return nil, "", false
	}
	first, err := in.Peek(1)
	if err != nil {
		return nil, "", false
	}
	if first[0] != '$' {
		return nil, "expected '$'", false
	}
	length, why, ok := number(in, out, "invalid bulk length")
	if ok && (length < 0 || length > longestString) {
		why, ok = "invalid bulk length", false
	}
	if !ok {
		return nil, why, false
	}
	if in.Buffered() < length+2 && out.Flush() != nil {
		return nil, "", false
	}
	word := make([]byte, length+2)
	if _, err := io.ReadFull(in, word); err != nil {
		return nil, "", false
	}
	return word[:length], "", true
}

// number reads the number behind the mark at the beginning of a line.
func number(in *bufio.Reader, out *bufio.Writer, why problem) (int, problem, bool) {
	text, ok := line(in, out)
	if !ok {
		return 0, "", false
	}
	value, err := strconv.Atoi(string(text[1:]))
	if err != nil || len(text) > 12 {
		return 0, why, false
	}
	return value, "", true
}

// obey does what a command says.
func (s *store) obey(out *bufio.Writer, words [][]byte) {
	s.lock.Lock()
	defer s.lock.Unlock()
	name := strings.ToLower(string(words[0]))
	switch count := len(words); {
	case name == "ping" && count == 1:
		out.WriteString("+PONG\r\n")
	case (name == "ping" || name == "echo") && count == 2:
		writeBulk(out, words[1])
	case name == "get" && count == 2:
		if value, there := s.values[string(words[1])]; there {
			writeBulk(out, value)
		} else {
			out.WriteString("$-1\r\n")
		}
	case name == "set" && count == 3:
		s.values[string(words[1])] = words[2]
		out.WriteString("+OK\r\n")
	case name == "incr" && count == 2:
		s.increment(out, string(words[1]))
	case name == "del" && count >= 2:
		removed := 0
		for _, key := range words[1:] {
			if _, there := s.values[string(key)]; there {
				removed++
				delete(s.values, string(key))
			}
		}
		fmt.Fprintf(out, ":%d\r\n", removed)
	case name == "config" && count == 3:
		out.WriteString("*0\r\n")
	default:
		switch name {
		case "ping", "echo", "get", "set", "incr", "del", "config":
			fmt.Fprintf(out, "-ERR wrong number of arguments for '%s' command\r\n", name)
		default:
			out.WriteString("-ERR unknown command\r\n")
		}
	}
}

func (s *store) increment(out *bufio.Writer, key string) {
	old := int64(0)
	if text, there := s.values[key]; there {
		value, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || strconv.FormatInt(value, 10) != string(text) || value == 1<<63-1 {
			out.WriteString("-ERR value is not an integer or out of range\r\n")
			return
		}
		old = value
	}
	text := strconv.AppendInt(nil, old+1, 10)
	s.values[key] = text
	out.WriteByte(':')
	out.Write(text)
	out.WriteString("\r\n")
}

func writeBulk(out *bufio.Writer, value []byte) {
	out.WriteByte('$')
	out.WriteString(strconv.Itoa(len(value)))
	out.WriteString("\r\n")
	out.Write(value)
	out.WriteString("\r\n")
}
