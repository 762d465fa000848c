// The servers of streams in Go: TLS echo by crypto/tls, a proxy by io.Copy, a chat room with a small codec of frames.
//
//	streams tls | proxy ADDR | chat
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"time"
)

// The bytes of the buffer into which a connection is read.
const bufferSize = 16 * 1024

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "tls":
		config := tlsConfig()
		listen(func(stream *net.TCPConn) { serveTLS(tls.Server(stream, config)) })
	case len(os.Args) == 3 && os.Args[1] == "proxy":
		listen(func(stream *net.TCPConn) { forward(stream, os.Args[2]) })
	case len(os.Args) == 2 && os.Args[1] == "chat":
		room := newRoom()
		listen(func(stream *net.TCPConn) { room.attend(stream, bufio.NewReaderSize(stream, 4096)) })
	default:
		fmt.Fprintln(os.Stderr, "usage: streams tls | proxy ADDR | chat")
		os.Exit(2)
	}
}

// listen serves each connection in a goroutine of its own.
func listen(serve func(*net.TCPConn)) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		stream, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			defer stream.Close()
			serve(stream.(*net.TCPConn))
		}()
	}
}

// tlsConfig makes a certificate that nothing but a driver of this package trusts.
func tlsConfig() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(365 * 24 * time.Hour),
		DNSNames:     []string{"localhost"},
	}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{made}, PrivateKey: key}}}
}

// serveTLS sends back what comes, until the client says that it has ended.
func serveTLS(stream *tls.Conn) {
	buffer := make([]byte, bufferSize)
	for {
		length, err := stream.Read(buffer)
		if length > 0 {
			if _, err := stream.Write(buffer[:length]); err != nil {
				return
			}
		}
		if err == io.EOF {
			stream.CloseWrite()
			return
		}
		if err != nil {
			return
		}
	}
}

// forward passes on both directions; the end of one, too. io.Copy between two sockets is splice in the kernel.
func forward(client *net.TCPConn, to string) {
	stream, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer stream.Close()
	server := stream.(*net.TCPConn)
	done := make(chan struct{})
	go func() {
		pump(client, server)
		close(done)
	}()
	pump(server, client)
	<-done
}

// pump passes on one direction. Where that fails, both connections are ended, and the other direction sees that.
func pump(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		from.Close()
		to.Close()
		return
	}
	to.CloseWrite()
}
