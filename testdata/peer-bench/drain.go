package main

// GetFlows over HTTP/2 without gRPC's library, which takes longer for a message than a fast server does: what is measured is to
// be the server. Flow control is that of a client with 4 MiB windows.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHead   = 9
	frameMost   = 16 << 10
	grpcHead    = 5
	window      = 4 << 20
	firstWindow = 65535
)

// drain is one connection, for one call after the other.
type drain struct {
	conn     net.Conn
	in       *bufio.Reader
	framer   *http2.Framer
	headers  bytes.Buffer
	encoder  *hpack.Encoder
	decoder  *hpack.Decoder
	stream   uint32
	status   string
	part     []byte // of a message whose rest comes in the next frame
	consumed uint32
}

func dial(addr string) (*drain, error) {
	network, address := "tcp", addr
	if path, is := strings.CutPrefix(addr, "unix://"); is {
		network, address = "unix", path
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	d := &drain{conn: conn, in: bufio.NewReaderSize(conn, 256<<10), framer: http2.NewFramer(conn, nil)}
	d.encoder = hpack.NewEncoder(&d.headers)
	d.decoder = hpack.NewDecoder(4096, func(field hpack.HeaderField) {
		if field.Name == "grpc-status" {
			d.status = field.Value
		}
	})
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := d.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		return nil, err
	}
	return d, d.framer.WriteWindowUpdate(0, window-firstWindow)
}

// call sends the request and gives take each message of the answer, until the answer or the context ends.
func (d *drain) call(ctx context.Context, request []byte, take func(message []byte) error) error {
	stop := context.AfterFunc(ctx, func() { d.conn.Close() })
	defer stop()
	d.stream = max(d.stream+2, 1) | 1
	d.status, d.part = "", d.part[:0]
	d.headers.Reset()
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/observer.Observer/GetFlows"}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		d.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	err := d.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: d.stream, BlockFragment: d.headers.Bytes(), EndHeaders: true})
	message := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(request)))
	err = errors.Join(err, d.framer.WriteData(d.stream, true, append(message, request...)))
	for err == nil {
		var ended bool
		if ended, err = d.frame(take); ended {
			break
		}
	}
	if err == nil && d.status != "0" {
		err = fmt.Errorf("grpc-status %q", d.status)
	}
	return err
}

// frame takes in one frame; true at the end of the answer.
func (d *drain) frame(take func([]byte) error) (bool, error) {
	head, err := d.in.Peek(frameHead)
	if err != nil {
		return false, err
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	kind, flags := http2.FrameType(head[3]), http2.Flags(head[4])
	if length > frameMost {
		return false, fmt.Errorf("a frame of %d bytes", length)
	}
	frame, err := d.in.Peek(frameHead + length)
	if err != nil {
		return false, err
	}
	payload := frame[frameHead:]
	switch kind {
	case http2.FrameData:
		err = d.data(payload, take)
	case http2.FrameHeaders:
		_, err = d.decoder.Write(payload)
	case http2.FrameSettings:
		if !flags.Has(http2.FlagSettingsAck) {
			err = d.framer.WriteSettingsAck()
		}
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			err = d.framer.WritePing(true, [8]byte(payload))
		}
	case http2.FrameWindowUpdate:
	default:
		err = fmt.Errorf("a frame of type %v", kind)
	}
	_, discarded := d.in.Discard(frameHead + length)
	ended := (kind == http2.FrameData || kind == http2.FrameHeaders) && flags.Has(http2.FlagDataEndStream)
	return ended, errors.Join(err, discarded)
}

func (d *drain) data(payload []byte, take func([]byte) error) error {
	d.consumed += uint32(len(payload))
	if d.consumed >= window/4 {
		err := errors.Join(d.framer.WriteWindowUpdate(0, d.consumed), d.framer.WriteWindowUpdate(d.stream, d.consumed))
		if err != nil {
			return err
		}
		d.consumed = 0
	}
	for len(d.part) > 0 {
		missing := messageLength(d.part) - len(d.part)
		if missing == 0 {
			if err := take(d.part[grpcHead:]); err != nil {
				return err
			}
			d.part = d.part[:0]
			break
		}
		if len(payload) == 0 {
			return nil
		}
		taken := min(missing, len(payload))
		d.part, payload = append(d.part, payload[:taken]...), payload[taken:]
	}
	for len(payload) > 0 {
		length := messageLength(payload)
		if len(payload) < max(length, grpcHead) {
			d.part = append(d.part, payload...)
			return nil
		}
		if err := take(payload[grpcHead:length]); err != nil {
			return err
		}
		payload = payload[length:]
	}
	return nil
}

// messageLength counts the head; of less than a head it is the head's.
func messageLength(begin []byte) int {
	if len(begin) < grpcHead {
		return grpcHead
	}
	return grpcHead + int(binary.BigEndian.Uint32(begin[1:grpcHead]))
}
