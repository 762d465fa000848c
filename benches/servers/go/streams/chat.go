package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// What waits for a member of the room, at most. The member for which more comes is thrown out.
const queueLength = 256

// The kinds of frames (RFC 6455).
const (
	text    = 1
	bytesOf = 2
	closes  = 8
	ping    = 9
	pong    = 10
)

type room struct {
	sync.Mutex
	members map[*member]struct{}
}

// A member: frames wait in the queue as they are written. `gone` is closed when nothing more is to be written.
type member struct {
	stream *net.TCPConn
	queue  chan []byte
	gone   chan struct{}
}

func newRoom() *room { return &room{members: map[*member]struct{}{}} }

// put adds a frame to the queue; false if that is full: then the member is thrown out.
func (m *member) put(frame []byte) bool {
	select {
	case m.queue <- frame:
		return true
	default:
		m.stream.Close()
		return false
	}
}

// say puts a frame into all queues. The room waits for no member.
func (r *room) say(frame []byte) {
	r.Lock()
	defer r.Unlock()
	for m := range r.members {
		if !m.put(frame) {
			delete(r.members, m)
		}
	}
}

// attend serves a member from the handshake to the end.
func (r *room) attend(stream *net.TCPConn, reader *bufio.Reader) {
	request, err := http.ReadRequest(reader)
	key := ""
	if err == nil {
		key = request.Header.Get("Sec-WebSocket-Key")
	}
	if key == "" {
		return
	}
	proof := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(proof[:]) + "\r\n\r\n"
	if _, err := io.WriteString(stream, answer); err != nil {
		return
	}
	m := &member{stream: stream, queue: make(chan []byte, queueLength), gone: make(chan struct{})}
	r.Lock()
	r.members[m] = struct{}{}
	r.Unlock()
	written := make(chan struct{})
	go func() {
		m.write()
		close(written)
	}()
	farewell := r.read(m, reader)
	r.Lock()
	delete(r.members, m)
	r.Unlock()
	if !farewell {
		stream.Close()
	}
	close(m.gone)
	<-written
}

// read takes what a member says, until it leaves; true if it said farewell.
func (r *room) read(m *member, reader *bufio.Reader) bool {
	for {
		kind, payload, err := readFrame(reader)
		if err != nil {
			return false
		}
		switch kind {
		case text, bytesOf:
			r.say(frame(kind, payload))
		case ping:
			m.put(frame(pong, payload))
		case closes:
			m.put(frame(closes, payload))
			return true
		}
	}
}

// write writes what is in the queue, as much at once as there is.
func (m *member) write() {
	var batch []byte
	for {
		select {
		case frame := <-m.queue:
			batch = append(batch[:0], frame...)
		case <-m.gone:
			// What was in the queue before the end is still written.
			select {
			case frame := <-m.queue:
				batch = append(batch[:0], frame...)
			default:
				return
			}
		}
		for more := true; more && len(batch) < bufferSize; {
			select {
			case frame := <-m.queue:
				batch = append(batch, frame...)
			default:
				more = false
			}
		}
		if _, err := m.stream.Write(batch); err != nil {
			return
		}
	}
}

// readFrame reads a frame of a client: a whole message, masked.
func readFrame(reader *bufio.Reader) (byte, []byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(reader, head[:2]); err != nil {
		return 0, nil, err
	}
	if head[0]&0xf0 != 0x80 || head[1]&0x80 == 0 {
		return 0, nil, errors.New("a part of a message, or no mask")
	}
	kind, length := head[0]&0x0f, uint64(head[1]&0x7f)
	switch length {
	case 126:
		if _, err := io.ReadFull(reader, head[:2]); err != nil {
			return 0, nil, err
		}
		length = uint64(binary.BigEndian.Uint16(head[:2]))
	case 127:
		if _, err := io.ReadFull(reader, head[:8]); err != nil {
			return 0, nil, err
		}
		length = binary.BigEndian.Uint64(head[:8])
	}
	if length > 1<<24 {
		return 0, nil, errors.New("too long")
	}
	var mask [4]byte
	if _, err := io.ReadFull(reader, mask[:]); err != nil {
		return 0, nil, err
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(reader, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return kind, payload, nil
}

// frame returns a frame of a server.
func frame(kind byte, payload []byte) []byte {
	out := make([]byte, 0, len(payload)+10)
	out = append(out, 0x80|kind)
	switch length := len(payload); {
	case length < 126:
		out = append(out, byte(length))
	case length < 1<<16:
		out = append(out, 126, byte(length>>8), byte(length))
	default:
		out = append(out, 127)
		out = binary.BigEndian.AppendUint64(out, uint64(length))
	}
	return append(out, payload...)
}
