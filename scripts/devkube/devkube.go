// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package devkube runs a real Kubernetes API on free loopback ports, for tests: etcd, the
// API server, and External Secrets as its only controller. There is no kubelet, so no pod
// ever starts.
package devkube

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// Issuer is the issuer of the ServiceAccounts' tokens, as kubeadm sets it.
	Issuer = "https://kubernetes.default.svc.cluster.local"

	// startTimeout is how long the API may take to be ready. It takes about 5 seconds.
	startTimeout = 2 * time.Minute
	// stopTimeout is how long a process may take to end before it is killed.
	stopTimeout = 10 * time.Second
)

// Options are the folders that scripts/kubernetes.sh prints.
type Options struct {
	APIServerDir string // etcd, kube-apiserver and kubectl
	SecretsDir   string // external-secrets and its custom resource definitions
}

// Cluster is a running Kubernetes API whose administrator is the caller.
type Cluster struct {
	URL           string // of the API server
	CAFile        string // the certificate of the API server, self-signed
	Kubeconfig    string // a file for kubectl
	PublicKeyFile string // to verify the ServiceAccounts' tokens

	options   Options
	dir       string
	token     string
	client    *http.Client
	processes []*process
}

// process is a program that runs until it is stopped.
type process struct {
	name string
	cmd  *exec.Cmd
	log  lockedBuffer
	done chan struct{} // closed when it has ended
}

// lockedBuffer can be read while the process writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Start runs etcd and the API server with their files below dir, and returns once the API
// is ready. They end with Stop, or when the context does.
func Start(ctx context.Context, o Options, dir string) (*Cluster, error) {
	c := &Cluster{
		CAFile:        filepath.Join(dir, "apiserver.crt"),
		Kubeconfig:    filepath.Join(dir, "kubeconfig"),
		PublicKeyFile: filepath.Join(dir, "sa.pub"),
		options:       o,
		dir:           dir,
		token:         rand.Text(),
	}
	err := c.start(ctx)
	if err != nil {
		c.Stop()
		return nil, fmt.Errorf("%w\n%s", err, c.Log())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.writeFiles(); err != nil {
		return err
	}
	addrs, err := freeAddrs(3)
	if err != nil {
		return err
	}
	client, peer := "http://"+addrs[0], "http://"+addrs[1]
	host, port, _ := net.SplitHostPort(addrs[2])
	c.URL = "https://" + addrs[2]
	err = c.run(ctx, filepath.Join(c.options.APIServerDir, "etcd"),
		"--data-dir="+c.dir+"/etcd", "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	if err != nil {
		return err
	}
	err = c.run(ctx, filepath.Join(c.options.APIServerDir, "kube-apiserver"),
		"--etcd-servers="+client, "--bind-address="+host, "--secure-port="+port,
		"--cert-dir="+c.dir, "--token-auth-file="+c.dir+"/tokens.csv", "--authorization-mode=RBAC",
		"--service-account-issuer="+Issuer, "--service-account-key-file="+c.PublicKeyFile,
		"--service-account-signing-key-file="+c.dir+"/sa.key",
		// No controller makes the ServiceAccounts that this plugin requires.
		"--disable-admission-plugins=ServiceAccount",
		// Nobody reaches this API through a Service.
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24")
	if err != nil {
		return err
	}
	return c.waitUntilReady(ctx)
}

// writeFiles writes what the API server reads when it starts: the key that signs the
// ServiceAccounts' tokens, and the administrator's token.
func (c *Cluster) writeFiles() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("generating a key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding a key: %w", err)
	}
	return errors.Join(
		writePEM(filepath.Join(c.dir, "sa.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
		writePEM(c.PublicKeyFile, "PUBLIC KEY", public),
		os.WriteFile(filepath.Join(c.dir, "tokens.csv"), []byte(c.token+`,admin,admin,"system:masters"`+"\n"), 0o600),
	)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// freeAddrs returns loopback addresses on which nobody listened a moment ago.
func freeAddrs(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer l.Close() // at the end, so that all are different
		addrs[i] = l.Addr().String()
	}
	return addrs, nil
}

// waitUntilReady waits for the API server, which makes its certificate when it starts, and
// writes the file for kubectl.
func (c *Cluster) waitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if c.client == nil {
			c.client = c.newClient()
		}
		if c.client != nil {
			status, _, err := c.Get(ctx, "/readyz")
			if err == nil && status == http.StatusOK {
				return c.writeKubeconfig()
			}
		}
		for _, p := range c.processes {
			select {
			case <-p.done:
				return fmt.Errorf("%s ended before it was ready", p.name)
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// newClient returns nil until the API server has made its certificate.
func (c *Cluster) newClient() *http.Client {
	certificate, err := os.ReadFile(c.CAFile)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(certificate) {
		return nil
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
}

func (c *Cluster) writeKubeconfig() error {
	type object = map[string]any
	raw, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "dev",
		"clusters": []object{{"name": "dev", "cluster": object{"server": c.URL, "certificate-authority": c.CAFile}}},
		"users":    []object{{"name": "admin", "user": object{"token": c.token}}},
		"contexts": []object{{"name": "dev", "context": object{"cluster": "dev", "user": "admin"}}},
	})
	if err != nil {
		return fmt.Errorf("encoding the kubeconfig: %w", err)
	}
	return os.WriteFile(c.Kubeconfig, raw, 0o600)
}

// Get reads a path of the API as the administrator. The answer is empty if it is not JSON.
func (c *Cluster) Get(ctx context.Context, path string) (int, map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("calling the API server: %w", err)
	}
	defer resp.Body.Close()
	answer := map[string]any{}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return 0, nil, fmt.Errorf("decoding the answer to %s: %w", path, err)
		}
	}
	return resp.StatusCode, answer, nil
}

// Kubectl returns a kubectl command of the administrator.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.options.APIServerDir, "kubectl"), args...)
	cmd.Env = c.environ()
	return cmd
}

// environ is the environment without settings for Vault, which External Secrets would
// use.
func (c *Cluster) environ() []string {
	env := []string{"KUBECONFIG=" + c.Kubeconfig}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "VAULT_") && !strings.HasPrefix(v, "BAO_") && !strings.HasPrefix(v, "KUBECONFIG=") {
			env = append(env, v)
		}
	}
	return env
}

// StartExternalSecrets installs its custom resource definitions, and runs the operator with
// its defaults, outside the cluster and as the administrator.
func (c *Cluster) StartExternalSecrets(ctx context.Context) error {
	crds := filepath.Join(c.options.SecretsDir, "crds")
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", crds},
		{"wait", "--for=condition=Established", "-f", crds, "--timeout=2m"},
	} {
		if out, err := c.Kubectl(ctx, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("kubectl %s: %w\n%s", args[0], err, out)
		}
	}
	return c.run(ctx, filepath.Join(c.options.SecretsDir, "external-secrets"), "--metrics-addr=0")
}

// run starts a program.
func (c *Cluster) run(ctx context.Context, bin string, args ...string) error {
	p := &process{name: filepath.Base(bin), cmd: exec.CommandContext(ctx, bin, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = c.dir, c.environ()
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = stopTimeout
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its output says how it ended
		close(p.done)
	}()
	c.processes = append(c.processes, p)
	return nil
}

// Stop ends all processes, the last started first, and waits until they have ended.
func (c *Cluster) Stop() {
	for i := len(c.processes) - 1; i >= 0; i-- {
		p := c.processes[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended, which is fine
		select {
		case <-p.done:
		case <-time.After(stopTimeout):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
}

// Log returns the end of each program's output.
func (c *Cluster) Log() string {
	const last = 8000
	var text strings.Builder
	for _, p := range c.processes {
		log := p.log.String()
		fmt.Fprintf(&text, "--- %s\n%s\n", p.name, log[max(0, len(log)-last):])
	}
	return text.String()
}
