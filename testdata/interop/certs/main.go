// Writes a certificate authority and what it signed into a folder: for the daemons, for the relay to both sides, for a client.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func write(name, kind string, der []byte) {
	path := filepath.Join(os.Args[1], name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		panic(err)
	}
}

func main() {
	now := time.Now()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	}
	caKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := template(1, "test authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	write("ca.crt", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)))
	for i, file := range [][2]string{
		{"server", "*.default.hubble-grpc.cilium.io"},
		{"relay", "*.hubble-relay.cilium.io"},
		{"client", "*.hubble-ui.cilium.io"},
	} {
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		leaf := template(int64(i+2), file[1])
		leaf.DNSNames, leaf.KeyUsage = []string{file[1]}, x509.KeyUsageDigitalSignature
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		write(file[0]+".crt", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)))
		write(file[0]+".key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	}
}
