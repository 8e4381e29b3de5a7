// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package kubernetes runs examples/kubernetes in a real Kubernetes API with External Secrets,
// which "make kubernetes-test" builds. There is no kubelet, so no pod ever starts. It is a
// module of its own, so that Kubernetes' modules stay out of the others.
package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	// secretRenewals is how many new tokens must follow the first one. That takes longer
	// than the life of a token.
	secretRenewals = 6
	// issuer is the issuer of the ServiceAccounts' tokens, as kubeadm sets it.
	issuer = "https://kubernetes.default.svc.cluster.local"
	// startTimeout is how long Kubernetes may take to start. It takes about 5 seconds.
	startTimeout = 2 * time.Minute
	version      = "v0.0.1-test"
)

type object = map[string]any

// kubernetes follows examples/kubernetes/README.md in a copy of its folder. The copy has
// the addresses of the test, and a fifth of all times.
type kubernetes struct {
	t       *testing.T
	text    string
	dir     string
	vault   *devvault.Cluster // of one node
	api     client.Client
	host    string         // the API server's URL
	environ []string       // of an administrator of both
	key     *rsa.PublicKey // for the host tokens
}

func newKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	k := &kubernetes{t: t, dir: t.TempDir()}
	k.startVault()
	k.startAPI()
	k.copyExample()
	return k
}

// startVault runs a Vault that keeps its storage when it is stopped, with the engine as it
// is after the README's first minute.
func (k *kubernetes) startVault() {
	k.t.Helper()
	plugins := k.t.TempDir()
	file := filepath.Join(plugins, devvault.PluginName)
	build := exec.CommandContext(k.t.Context(), "../build.sh", file)
	build.Env = append(os.Environ(), "VERSION="+version)
	out, err := build.CombinedOutput()
	require.NoError(k.t, err, string(out))
	k.vault, err = devvault.StartFirstNode(k.t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: plugins}, k.t.TempDir())
	require.NoError(k.t, err)
	k.t.Cleanup(k.vault.Stop)
	require.NoError(k.t, k.vault.Register(k.t.Context(), devvault.PluginName, version, file))
	private := k.newKey("key.pem")
	k.key = &private.PublicKey
	k.environ = k.node().Command(k.t.Context(), k.vault.RootToken).Env
	k.run("vault secrets enable -path=clanmeeting " + devvault.PluginName)
	k.run("vault write clanmeeting/config consumer_id=acme private_key=@key.pem domain=meet.example.com")
}

// startAPI runs Kubernetes' API server, and External Secrets outside the cluster, with its
// defaults and as the administrator.
func (k *kubernetes) startAPI() {
	k.t.Helper()
	dirs := strings.Split(os.Getenv("KUBERNETES_DIRS"), "\n")
	require.Len(k.t, dirs, 2, "run make kubernetes-test, which builds what KUBERNETES_DIRS names")
	// Vault takes tokens with RS256, which kubeadm's keys sign; envtest's sign with ES256.
	key := k.newKey("sa.key")
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(k.t, err)
	k.writePEM("sa.pub", "PUBLIC KEY", public)
	env := &envtest.Environment{
		BinaryAssetsDirectory:    dirs[0],
		CRDInstallOptions:        envtest.CRDInstallOptions{Paths: []string{filepath.Join(dirs[1], "crds")}, ErrorIfPathMissing: true, MaxTime: startTimeout},
		ControlPlaneStartTimeout: startTimeout,
	}
	env.ControlPlane.GetAPIServer().Configure().
		Set("service-account-issuer", issuer).
		Set("service-account-key-file", filepath.Join(k.dir, "sa.pub")).
		Set("service-account-signing-key-file", filepath.Join(k.dir, "sa.key")).
		// Nobody reaches this API through a Service.
		Set("endpoint-reconciler-type", "none")
	k.t.Cleanup(func() { require.NoError(k.t, env.Stop()) })
	config, err := env.Start()
	require.NoError(k.t, err)
	k.host = strings.TrimSuffix(config.Host, "/")
	k.api, err = client.New(config, client.Options{})
	require.NoError(k.t, err)
	k.writeFile("kubeconfig", env.KubeConfig)
	k.writeFile("ca.crt", config.CAData)
	k.environ = append(k.environ, "KUBECONFIG="+filepath.Join(k.dir, "kubeconfig"))
	k.start(exec.CommandContext(k.t.Context(), filepath.Join(dirs[1], "external-secrets"), "--metrics-addr=0"))
}

// start runs a program until the end of the test. It gets no settings for Vault, which
// External Secrets would use.
func (k *kubernetes) start(cmd *exec.Cmd) {
	k.t.Helper()
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	for _, setting := range k.environ {
		if !strings.HasPrefix(setting, "VAULT_") && !strings.HasPrefix(setting, "BAO_") {
			cmd.Env = append(cmd.Env, setting)
		}
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	require.NoError(k.t, cmd.Start())
	k.t.Cleanup(func() {
		_ = cmd.Wait() // its output says how it ended
		if k.t.Failed() {
			k.t.Logf("--- the end of what %s said:\n%s", cmd.Path, said.Bytes()[max(0, said.Len()-8000):])
		}
	})
}

func (k *kubernetes) node() *devvault.Node { return k.vault.Nodes[0] }

// call makes a request to Vault.
func (k *kubernetes) call(token any, method, path string, body any) (int, devvault.Answer) {
	k.t.Helper()
	status, answer, err := k.node().Call(k.t.Context(), fmt.Sprint(token), method, path, body)
	require.NoError(k.t, err)
	return status, answer
}

func (k *kubernetes) writeFile(name string, content []byte) {
	k.t.Helper()
	require.NoError(k.t, os.WriteFile(filepath.Join(k.dir, name), content, 0o600))
}

func (k *kubernetes) writePEM(name, kind string, der []byte) {
	k.t.Helper()
	k.writeFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// newKey makes a key and writes it to a file.
func (k *kubernetes) newKey(name string) *rsa.PrivateKey {
	k.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(k.t, err)
	k.writePEM(name, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	return key
}

// copyExample copies the folder.
func (k *kubernetes) copyExample() {
	k.t.Helper()
	replacer := strings.NewReplacer(
		"https://vault.example.com:8200", k.node().Addr,
		"https://kubernetes.example.com:6443", k.host,
		"ttl=5m max_ttl=5m", "ttl=1m max_ttl=1m",
		"refreshInterval: 1m", "refreshInterval: 12s",
		"static-secret-render-interval: 1m", "static-secret-render-interval: 12s",
	)
	files, err := filepath.Glob("../../examples/kubernetes/*")
	require.NoError(k.t, err)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(k.t, err)
		text := replacer.Replace(string(raw))
		if filepath.Base(file) == "README.md" {
			k.text = text
		}
		k.writeFile(filepath.Base(file), []byte(text))
	}
}

// blocks returns the blocks of commands in a section: what is indented by four spaces.
func (k *kubernetes) blocks(section string, want int) []string {
	k.t.Helper()
	_, text, found := strings.Cut(k.text, "\n## "+section+"\n")
	require.True(k.t, found, section)
	text, _, _ = strings.Cut(text, "\n## ")
	var blocks []string
	for _, paragraph := range strings.Split(text, "\n\n") {
		if strings.HasPrefix(paragraph, "    ") {
			blocks = append(blocks, paragraph)
		}
	}
	require.Len(k.t, blocks, want, section)
	return blocks
}

// run runs commands as an administrator of Vault and of the cluster, and returns what they
// print.
func (k *kubernetes) run(commands string) string {
	k.t.Helper()
	kubectl, _, _ := strings.Cut(os.Getenv("KUBERNETES_DIRS"), "\n")
	functions := fmt.Sprintf("vault() { '%s' \"$@\"; }; kubectl() { '%s/kubectl' \"$@\"; }\n", k.node().Command(k.t.Context(), "").Path, kubectl)
	shell := exec.CommandContext(k.t.Context(), "sh", "-ec", functions+commands)
	shell.Dir, shell.Env = k.dir, k.environ
	out, err := shell.CombinedOutput()
	require.NoError(k.t, err, "%s\n%s", commands, out)
	return string(out)
}

// hostToken is the content of a Secret: a token, and when it expires.
type hostToken struct {
	text       string
	room       any
	expiration time.Time
}

// hostToken verifies a token, which may have expired.
func (k *kubernetes) hostToken(text string) (hostToken, error) {
	claims := jwt.MapClaims{}
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation()).
		ParseWithClaims(text, claims, func(*jwt.Token) (any, error) { return k.key, nil })
	if err != nil {
		return hostToken{}, fmt.Errorf("%q: %w", text, err)
	}
	expiration, err := claims.GetExpirationTime()
	if err != nil || expiration == nil {
		return hostToken{}, fmt.Errorf("%q: no expiration: %w", text, err)
	}
	return hostToken{text, claims["room"], expiration.Time}, nil
}

// secret reads and verifies the token of a Secret.
func (k *kubernetes) secret(name string) (hostToken, error) {
	var secret corev1.Secret
	if err := k.api.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: name}, &secret); err != nil {
		return hostToken{}, fmt.Errorf("reading the Secret %s: %w", name, err)
	}
	token, err := k.hostToken(string(secret.Data["token"]))
	if err != nil {
		return hostToken{}, fmt.Errorf("the Secret %s: %w", name, err)
	}
	if expiration := string(secret.Data["expiration"]); expiration != fmt.Sprint(token.expiration.Unix()) {
		return hostToken{}, fmt.Errorf("the Secret %s has expiration %q, its token %d", name, expiration, token.expiration.Unix())
	}
	return token, nil
}

func (k *kubernetes) mustSecret(name string) hostToken {
	k.t.Helper()
	token, err := k.secret(name)
	require.NoError(k.t, err)
	return token
}

// watch reads a Secret all the time, and remembers the first read that found no valid
// token.
type watch struct {
	mu     sync.Mutex
	looks  int
	tokens int
	last   string
	least  time.Duration // the least time that any token had left
	err    error
}

func (k *kubernetes) watch(name string) *watch {
	w := &watch{least: time.Hour}
	ctx, cancel := context.WithCancel(k.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			token, err := k.secret(name)
			w.look(token, err)
			time.Sleep(100 * time.Millisecond)
		}
	}()
	k.t.Cleanup(func() {
		cancel()
		<-done
		k.t.Logf("%s: %d looks, %d tokens, the least life left was %s", name, w.looks, w.tokens, w.least.Round(time.Second/10))
	})
	return w
}

func (w *watch) look(token hostToken, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if err == nil && token.text != w.last {
		w.last = token.text
		w.tokens++
	}
	left := time.Until(token.expiration)
	if err == nil {
		w.least = min(w.least, left)
	}
	if err == nil && left <= 0 {
		err = fmt.Errorf("at look %d, token %d had expired", w.looks, w.tokens)
	}
	if w.err == nil {
		w.err = err
	}
}

func (w *watch) state() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tokens, w.err
}

// moreTokens waits until the Secret had n more tokens. It fails if the Secret ever had no
// valid token.
func (k *kubernetes) moreTokens(w *watch, n int) {
	k.t.Helper()
	first, _ := w.state()
	k.eventually("too few new tokens", func() bool {
		tokens, err := w.state()
		require.NoError(k.t, err)
		return tokens >= first+n
	})
}

// eventually waits for something that External Secrets does. Unlike require.Eventually, it
// stays in the test's goroutine, so that the condition may fail the test.
func (k *kubernetes) eventually(problem string, happens func() bool) {
	k.t.Helper()
	for start := time.Now(); !happens(); time.Sleep(200 * time.Millisecond) {
		require.Less(k.t, time.Since(start), 2*time.Minute, problem)
	}
}

// TestKubernetes runs External Secrets with the manifests and commands of the example. The
// Secret never holds an expired token: while tokens are renewed, while another one is
// refused, and while Vault is down.
func TestKubernetes(t *testing.T) {
	k := newKubernetes(t)
	setUp := k.blocks("Set up Vault", 2)
	commands := k.blocks("External Secrets", 4)
	apply, applyRoom, events, forceSync := commands[0], commands[1], commands[2], commands[3]

	k.run(setUp[0])
	token := k.run(apply)
	w := k.watch("host-token")
	require.Contains(t, token, k.mustSecret("host-token").text)
	require.Equal(t, "front-desk", k.mustSecret("host-token").room)
	k.onlyThisLogin()
	accessors := k.accessors()

	k.run(applyRoom)
	k.refused(events)
	k.moreTokens(w, secretRenewals)
	k.outage(w, forceSync)
	require.Equal(t, accessors, k.accessors(), "logins pile up in Vault")

	k.run(setUp[1])
	k.onlyThisLogin()
	k.moreTokens(w, 1)

	k.injectedAgent()
	k.deployment("csi.yaml")
}

// onlyThisLogin tries to log in with other ServiceAccounts and for other audiences.
func (k *kubernetes) onlyThisLogin() {
	k.t.Helper()
	k.run("kubectl create serviceaccount other --dry-run=client -o yaml | kubectl apply -f -")
	login := func(arguments string) (int, devvault.Answer) {
		token := strings.TrimSpace(k.run("kubectl create token " + arguments))
		return k.call("", http.MethodPost, "auth/jwt/login", object{"role": "desk", "jwt": token})
	}
	for arguments, want := range map[string]string{
		"other --audience=vault":      "invalid subject (sub) claim",
		"front-desk --audience=other": "invalid audience (aud) claim",
		"front-desk":                  "invalid audience (aud) claim", // for the API server
	} {
		status, answer := login(arguments)
		require.Equal(k.t, http.StatusBadRequest, status, arguments)
		require.Contains(k.t, answer.Errors(), want, arguments)
	}
	status, answer := login("front-desk --audience=vault")
	require.Equal(k.t, http.StatusOK, status, answer.Errors())
	auth := answer["auth"].(object)
	require.Equal(k.t, []any{"desk"}, auth["policies"])
	status, answer = k.call(auth["client_token"], http.MethodGet, "clanmeeting/creds/desk", nil)
	require.Equal(k.t, http.StatusOK, status, answer.Errors())
	require.Equal(k.t, "front-desk", answer.Data()["room"])
	status, _ = k.call(auth["client_token"], http.MethodGet, "clanmeeting/config", nil)
	require.Equal(k.t, http.StatusForbidden, status)
}

// accessors returns the accessors of all service tokens in Vault.
func (k *kubernetes) accessors() any {
	k.t.Helper()
	status, answer := k.call(k.vault.RootToken, http.MethodGet, "auth/token/accessors?list=true", nil)
	require.Equal(k.t, http.StatusOK, status, answer.Errors())
	return answer.Data()["keys"]
}

// refused makes the manifest ask for a room that the role does not allow.
func (k *kubernetes) refused(events string) {
	k.t.Helper()
	before := k.mustSecret("meeting-room")
	require.Equal(k.t, "meeting-room", before.room)
	status, answer := k.call(k.vault.RootToken, http.MethodPost, "clanmeeting/creds/desk", object{"room": "board-room"})
	require.Equal(k.t, http.StatusBadRequest, status)
	k.patch("vaultdynamicsecret", `{"spec":{"parameters":{"room":"board-room"}}}`)
	k.eventually("no Event with: "+answer.Errors(), func() bool {
		return strings.Contains(k.run(events), answer.Errors())
	})
	k.eventually("the status does not change", func() bool {
		return strings.Contains(k.run("kubectl get externalsecret meeting-room -o yaml"), "could not get secret data from provider")
	})
	require.NotContains(k.t, k.run("kubectl get externalsecret meeting-room -o yaml"), answer.Errors())
	require.Equal(k.t, "meeting-room", k.mustSecret("meeting-room").room, "the last token is kept")
}

func (k *kubernetes) patch(kind, patch string) {
	k.t.Helper()
	k.run("kubectl patch " + kind + " meeting-room --type=merge -p '" + patch + "'")
}

// synced reports whether External Secrets has processed an ExternalSecret as it is now.
func (k *kubernetes) synced(name string) bool {
	k.t.Helper()
	var secret unstructured.Unstructured
	secret.SetGroupVersionKind(schema.GroupVersionKind{Group: "external-secrets.io", Version: "v1", Kind: "ExternalSecret"})
	require.NoError(k.t, k.api.Get(k.t.Context(), client.ObjectKey{Namespace: "default", Name: name}, &secret))
	synced, _, err := unstructured.NestedString(secret.Object, "status", "syncedResourceVersion")
	require.NoError(k.t, err)
	generation, _, _ := strings.Cut(synced, "-")
	return generation == fmt.Sprint(secret.GetGeneration())
}

// outage stops Vault until the token of one Secret has expired, and a renewal for the other
// one has failed. The other one is watched: its token outlasts the outage.
func (k *kubernetes) outage(w *watch, forceSync string) {
	k.t.Helper()
	// External Secrets processes a changed specification at once, and this one then only
	// after an hour.
	k.patch("vaultdynamicsecret", `{"spec":{"parameters":{"room":"meeting-room","ttl":"15s"}}}`)
	k.patch("externalsecret", `{"spec":{"refreshInterval":"1h"}}`)
	k.eventually("the short token does not come", func() bool { return k.synced("meeting-room") })
	last := k.mustSecret("meeting-room")
	require.LessOrEqual(k.t, time.Until(last.expiration), 15*time.Second)

	k.node().Stop()
	k.eventually("no Event tells that Vault is away", func() bool {
		return strings.Contains(k.run("kubectl events --for externalsecret/host-token"), "connection refused")
	})
	k.eventually("the short token does not expire", func() bool { return time.Now().After(last.expiration) })
	require.Equal(k.t, last, k.mustSecret("meeting-room"), "the expired token is kept")
	require.NoError(k.t, k.node().Start(k.t.Context()))
	k.moreTokens(w, 1)

	require.Equal(k.t, last, k.mustSecret("meeting-room"))
	k.run(forceSync)
	k.eventually("no new token", func() bool { return k.mustSecret("meeting-room").expiration.After(time.Now()) })
}

// deployment lets the API server check a Deployment of the example, without storing it, and
// returns it.
func (k *kubernetes) deployment(file string) object {
	k.t.Helper()
	raw, err := os.ReadFile(filepath.Join(k.dir, file))
	require.NoError(k.t, err)
	documents := strings.Split(string(raw), "\n---\n")
	last := documents[len(documents)-1] // those before are custom resources, unknown here
	require.Contains(k.t, last, "kind: Deployment")
	deployment := object{}
	out := k.run("kubectl apply --dry-run=server --validate=strict -o json -f - <<'END'\n" + last + "\nEND")
	require.NoError(k.t, json.Unmarshal([]byte(out), &deployment))
	return deployment["spec"].(object)["template"].(object)
}

// injectedAgent runs a real Vault Agent with the configuration that the Agent Injector makes
// from the example's annotations, and with a token like the kubelet's for the example's
// volume.
func (k *kubernetes) injectedAgent() {
	k.t.Helper()
	pod := k.deployment("agent-injector.yaml")
	annotations := pod["metadata"].(object)["annotations"].(object)
	annotation := func(name string) any {
		value, found := annotations["vault.hashicorp.com/"+name]
		require.True(k.t, found, name)
		return value
	}
	volume := pod["spec"].(object)["volumes"].([]any)[0].(object)
	require.Equal(k.t, annotation("agent-service-account-token-volume-name"), volume["name"])
	projected := volume["projected"].(object)["sources"].([]any)[0].(object)["serviceAccountToken"].(object)
	login, file := filepath.Join(k.dir, "login"), filepath.Join(k.dir, "injected-token")
	k.run(fmt.Sprintf("kubectl create token %s --audience=%s > %s", pod["spec"].(object)["serviceAccountName"], projected["audience"], login))

	config, err := json.Marshal(object{
		"auto_auth": object{"method": []object{{
			"type": "kubernetes", "mount_path": annotation("auth-path"), "max_backoff": annotation("auth-max-backoff"),
			"config": object{"role": annotation("role"), "token_path": login},
		}}},
		"template":        []object{{"contents": annotation("agent-inject-template-host-token"), "destination": file}},
		"template_config": object{"static_secret_render_interval": annotation("template-static-secret-render-interval"), "exit_on_retry_failure": false},
	})
	require.NoError(k.t, err)
	require.NoError(k.t, os.WriteFile(filepath.Join(k.dir, "agent.json"), config, 0o600))
	k.start(k.node().Command(k.t.Context(), "", "agent", "-config="+filepath.Join(k.dir, "agent.json")))

	tokens := map[string]time.Time{}
	k.eventually("the agent writes no second token", func() bool {
		raw, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			return false
		}
		require.NoError(k.t, err)
		if _, seen := tokens[string(raw)]; !seen {
			token, err := k.hostToken(string(raw))
			require.NoError(k.t, err)
			require.Equal(k.t, "front-desk", token.room)
			tokens[string(raw)] = token.expiration
		}
		require.Less(k.t, time.Now(), tokens[string(raw)])
		return len(tokens) == 2
	})
}
