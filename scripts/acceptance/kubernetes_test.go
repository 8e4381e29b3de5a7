// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

//go:build acceptance && kubernetes

// examples/kubernetes in a real Kubernetes API with External Secrets, which "make
// kubernetes-test" builds.

package acceptance

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
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

	"github.com/stretchr/testify/require"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devkube"
	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

// secretRenewals is how many new tokens must follow the first one. That takes longer than
// the life of a token.
const secretRenewals = 6

// kubernetes follows examples/kubernetes/README.md in a copy of its folder. The copy has
// the addresses of the test, and a fifth of all times.
type kubernetes struct {
	t        *testing.T
	text     string
	dir      string
	vault    *devvault.Cluster // of one node
	kube     *devkube.Cluster
	replacer *strings.Replacer
	key      *rsa.PublicKey // for the host tokens
}

func newKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	dirs := strings.Split(os.Getenv("KUBERNETES_DIRS"), "\n")
	require.Len(t, dirs, 2, "run make kubernetes-test, which builds what KUBERNETES_DIRS names")
	k := &kubernetes{t: t, dir: t.TempDir()}
	k.startVault()
	var err error
	k.kube, err = devkube.Start(t.Context(), devkube.Options{APIServerDir: dirs[0], SecretsDir: dirs[1]}, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() {
		k.kube.Stop()
		if t.Failed() {
			t.Log(k.kube.Log())
		}
	})
	require.NoError(t, k.kube.StartExternalSecrets(t.Context()))
	k.copyExample()
	return k
}

// startVault runs a Vault that keeps its storage when it is stopped, with the engine as it
// is after the README's first minute.
func (k *kubernetes) startVault() {
	k.t.Helper()
	plugins := k.t.TempDir()
	file := filepath.Join(plugins, devvault.PluginName)
	require.NoError(k.t, buildPlugin(file, testVersion))
	var err error
	k.vault, err = devvault.StartFirstNode(k.t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: plugins}, k.t.TempDir())
	require.NoError(k.t, err)
	k.t.Cleanup(func() {
		k.vault.Stop()
		require.NotContains(k.t, k.node().Log(), "DATA RACE")
	})
	require.NoError(k.t, k.vault.Register(k.t.Context(), devvault.PluginName, testVersion, file))
	key, private := newKey(k.t)
	k.key = &key.PublicKey
	k.root().write("sys/mounts/clanmeeting", map[string]any{"type": devvault.PluginName})
	k.root().write("clanmeeting/config", map[string]any{"consumer_id": "acme", "private_key": private, "domain": "meet.example.com"})
}

func (k *kubernetes) node() *devvault.Node { return k.vault.Nodes[0] }

func (k *kubernetes) root() client {
	return client{k.t, k.node().Server, k.vault.RootToken}
}

// copyExample copies the folder, with the keys that its commands read.
func (k *kubernetes) copyExample() {
	k.t.Helper()
	k.replacer = strings.NewReplacer(
		"https://vault.example.com:8200", k.node().Addr,
		"https://kubernetes.example.com:6443", k.kube.URL,
		"ttl=5m max_ttl=5m", "ttl=1m max_ttl=1m",
		"refreshInterval: 1m", "refreshInterval: 12s",
		"static-secret-render-interval: 1m", "static-secret-render-interval: 12s",
	)
	files, err := filepath.Glob("../../examples/kubernetes/*")
	require.NoError(k.t, err)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(k.t, err)
		text := k.replacer.Replace(string(raw))
		if filepath.Base(file) == "README.md" {
			k.text = text
		}
		require.NoError(k.t, os.WriteFile(filepath.Join(k.dir, filepath.Base(file)), []byte(text), 0o600))
	}
	require.NoError(k.t, os.Symlink(k.kube.PublicKeyFile, filepath.Join(k.dir, "sa.pub")))
	require.NoError(k.t, os.Symlink(k.kube.CAFile, filepath.Join(k.dir, "ca.crt")))
}

// blocks returns the blocks of commands in a section.
func (k *kubernetes) blocks(section string, want int) []string {
	k.t.Helper()
	_, text, found := strings.Cut(k.text, "\n## "+section+"\n")
	require.True(k.t, found, section)
	text, _, _ = strings.Cut(text, "\n## ")
	var blocks []string
	for _, paragraph := range strings.Split(text, "\n\n") {
		if commands := indented(paragraph + "\n"); commands != "" {
			blocks = append(blocks, commands)
		}
	}
	require.Len(k.t, blocks, want, section)
	return blocks
}

// run runs commands as an administrator of Vault and of the cluster, and returns what they
// print.
func (k *kubernetes) run(commands string) string {
	k.t.Helper()
	cli := k.node().Command(k.t.Context(), k.vault.RootToken)
	kubectl := k.kube.Kubectl(k.t.Context())
	shell := exec.CommandContext(k.t.Context(), "sh", "-ec", "kubectl() { '"+kubectl.Path+`' "$@"; }`+"\n"+withVault(cli, commands))
	shell.Dir, shell.Env = k.dir, append(cli.Env, "KUBECONFIG="+k.kube.Kubeconfig)
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

// secret reads and verifies the token of a Secret.
func (k *kubernetes) secret(name string) (hostToken, error) {
	status, answer, err := k.kube.Get(context.Background(), "/api/v1/namespaces/default/secrets/"+name)
	if err != nil || status != http.StatusOK {
		return hostToken{}, fmt.Errorf("reading the Secret %s: %d %w", name, status, err)
	}
	data := map[string]string{}
	fields, _ := answer["data"].(map[string]any)
	for field, value := range fields {
		raw, err := base64.StdEncoding.DecodeString(fmt.Sprint(value))
		if err != nil {
			return hostToken{}, err
		}
		data[field] = string(raw)
	}
	if strings.Count(data["token"], ".") != 2 {
		return hostToken{}, fmt.Errorf("the Secret %s holds no token: %q", name, data["token"])
	}
	claims, err := claimsOf(data["token"])
	if err == nil {
		err = verifySignature(data["token"], k.key)
	}
	if err == nil && data["expiration"] != fmt.Sprint(claims["exp"]) {
		err = fmt.Errorf("the Secret %s has expiration %q, its token %v", name, data["expiration"], claims["exp"])
	}
	if err != nil {
		return hostToken{}, err
	}
	exp, err := claims["exp"].(json.Number).Int64()
	return hostToken{data["token"], claims["room"], time.Unix(exp, 0)}, err
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
		return k.root().with("").post("auth/jwt/login", map[string]any{
			"role": "desk", "jwt": strings.TrimSpace(k.run("kubectl create token " + arguments)),
		})
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
	auth := answer["auth"].(map[string]any)
	require.Equal(k.t, []any{"desk"}, auth["policies"])
	pod := k.root().with(auth["client_token"])
	require.Equal(k.t, "front-desk", pod.read("clanmeeting/creds/desk")["room"])
	status, _ = pod.get("clanmeeting/config")
	require.Equal(k.t, http.StatusForbidden, status)
}

// accessors returns the accessors of all service tokens in Vault.
func (k *kubernetes) accessors() any {
	k.t.Helper()
	return k.root().read("auth/token/accessors?list=true")["keys"]
}

// refused makes the manifest ask for a room that the role does not allow.
func (k *kubernetes) refused(events string) {
	k.t.Helper()
	before := k.mustSecret("meeting-room")
	require.Equal(k.t, "meeting-room", before.room)
	status, answer := k.root().post("clanmeeting/creds/desk", map[string]any{"room": "board-room"})
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
	status, answer, err := k.kube.Get(k.t.Context(), "/apis/external-secrets.io/v1/namespaces/default/externalsecrets/"+name)
	require.NoError(k.t, err)
	require.Equal(k.t, http.StatusOK, status)
	synced, _ := answer["status"].(map[string]any)["syncedResourceVersion"].(string)
	generation, _, _ := strings.Cut(synced, "-")
	return generation == fmt.Sprint(answer["metadata"].(map[string]any)["generation"])
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
func (k *kubernetes) deployment(file string) map[string]any {
	k.t.Helper()
	raw, err := os.ReadFile(filepath.Join(k.dir, file))
	require.NoError(k.t, err)
	documents := strings.Split(string(raw), "\n---\n")
	last := documents[len(documents)-1] // those before are custom resources, unknown here
	require.Contains(k.t, last, "kind: Deployment")
	deployment := map[string]any{}
	out := k.run("kubectl apply --dry-run=server --validate=strict -o json -f - <<'END'\n" + last + "\nEND")
	require.NoError(k.t, json.Unmarshal([]byte(out), &deployment))
	return deployment["spec"].(map[string]any)["template"].(map[string]any)
}

// injectedAgent runs a real Vault Agent with the configuration that the Agent Injector makes
// from the example's annotations, and with a token like the kubelet's for the example's
// volume.
func (k *kubernetes) injectedAgent() {
	k.t.Helper()
	pod := k.deployment("agent-injector.yaml")
	annotations := pod["metadata"].(map[string]any)["annotations"].(map[string]any)
	annotation := func(name string) any {
		value, found := annotations["vault.hashicorp.com/"+name]
		require.True(k.t, found, name)
		return value
	}
	volume := pod["spec"].(map[string]any)["volumes"].([]any)[0].(map[string]any)
	require.Equal(k.t, annotation("agent-service-account-token-volume-name"), volume["name"])
	projected := volume["projected"].(map[string]any)["sources"].([]any)[0].(map[string]any)["serviceAccountToken"].(map[string]any)
	login, file := filepath.Join(k.dir, "login"), filepath.Join(k.dir, "injected-token")
	k.run(fmt.Sprintf("kubectl create token %s --audience=%s > %s", pod["spec"].(map[string]any)["serviceAccountName"], projected["audience"], login))

	type object = map[string]any
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
	agent := k.node().Command(k.t.Context(), "", "agent", "-config="+filepath.Join(k.dir, "agent.json"))
	var said bytes.Buffer
	agent.Stdout, agent.Stderr = &said, &said
	require.NoError(k.t, agent.Start())
	defer func() {
		_ = agent.Process.Signal(syscall.SIGTERM)
		_ = agent.Wait() // its output says how it ended
		if k.t.Failed() {
			k.t.Log(said.String())
		}
	}()

	tokens := map[string]time.Time{}
	k.eventually("the agent writes no second token", func() bool {
		raw, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			return false
		}
		require.NoError(k.t, err)
		if _, seen := tokens[string(raw)]; !seen {
			tokens[string(raw)] = expirationOf(k.t, string(raw), k.key)
		}
		require.Less(k.t, time.Now(), tokens[string(raw)])
		return len(tokens) == 2
	})
}
