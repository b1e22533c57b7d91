// Makes a certificate authority and certificates that it signed, as files: `certificates DIRECTORY < wanted.json`.
// The input is a list of {"name", "user", "group", "hosts"}; NAME.crt and NAME.key come out of each, and ca.crt and ca.key.
// A certificate with hosts serves, one without is for a client.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type wanted struct {
	Name, User, Group string
	Hosts             []string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "certificates:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: certificates DIRECTORY < wanted.json")
	}
	var list []wanted
	if err := json.NewDecoder(os.Stdin).Decode(&list); err != nil {
		return err
	}
	directory := os.Args[1]
	authority, err := template("nixl-transfer-cluster-ca", "")
	if err != nil {
		return err
	}
	authority.IsCA, authority.BasicConstraintsValid = true, true
	authority.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	key, err := issue(directory, "ca", authority, authority, nil)
	if err != nil {
		return err
	}
	for _, one := range list {
		certificate, err := template(one.User, one.Group)
		if err != nil {
			return err
		}
		certificate.KeyUsage = x509.KeyUsageDigitalSignature
		certificate.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if len(one.Hosts) > 0 {
			certificate.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		for _, host := range one.Hosts {
			if address := net.ParseIP(host); address != nil {
				certificate.IPAddresses = append(certificate.IPAddresses, address)
			} else {
				certificate.DNSNames = append(certificate.DNSNames, host)
			}
		}
		if _, err := issue(directory, one.Name, certificate, authority, key); err != nil {
			return err
		}
	}
	return nil
}

// A year is longer than any cluster of a developer lives; an hour back, for clocks that are set.
func template(user, group string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}, nil
}

// Signs with the given key, or with the new one when there is none yet: an authority signs itself.
func issue(directory, name string, certificate, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := write(directory, name+".key", "EC PRIVATE KEY", secret); err != nil {
		return nil, err
	}
	return key, write(directory, name+".crt", "CERTIFICATE", der)
}

func write(directory, name, kind string, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return os.WriteFile(filepath.Join(directory, name), text, 0o600)
}
