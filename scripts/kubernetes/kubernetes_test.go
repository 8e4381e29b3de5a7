// Copyright (c) The vault-plugin-secrets-clanmeeting authors
// SPDX-License-Identifier: MPL-2.0

// Package kubernetes runs examples/kubernetes in a real Kubernetes API with External Secrets,
// which "make kubernetes-test" builds. There is no kubelet, so no pod ever starts. It is a
// module of its own, so that Kubernetes' modules stay out of the others.
package kubernetes

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/clanmeeting/vault-plugin-secrets-clanmeeting/scripts/devvault"
)

const (
	// secretRenewals is how many new tokens must follow the first one. That takes longer
	// than the life of a token.
	secretRenewals = 6
	// startTimeout is how long Kubernetes may take to start. It takes about 5 seconds.
	startTimeout = 2 * time.Minute
)

type object = map[string]any

// kubernetes follows examples/kubernetes/README.md in a copy of its folder. The copy has
// the addresses of the test, and a fifth of all times.
type kubernetes struct {
	t       *testing.T
	dir     string
	vault   *devvault.Node // of a cluster of one
	api     client.Client
	environ []string       // of an administrator of both
	key     *rsa.PublicKey // for the host tokens

	last          hostToken // in the Secret host-token; see look
	looks, tokens int
	least         time.Duration // the least time that any token had left
}

func newKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	dirs := strings.Split(os.Getenv("KUBERNETES_DIRS"), "\n")
	require.Len(t, dirs, 2, "run make kubernetes-test, which builds what KUBERNETES_DIRS names")
	k := &kubernetes{t: t, dir: t.TempDir(), least: time.Hour}
	k.startVault(dirs[0])
	host := k.startAPI(dirs[0], dirs[1])
	k.copyExample(host)
	return k
}

// startVault runs a Vault that keeps its storage when it is stopped, with the engine as it
// is after the quick start.
func (k *kubernetes) startVault(kubectl string) {
	k.t.Helper()
	plugins := k.t.TempDir()
	file := filepath.Join(plugins, devvault.PluginName)
	out, err := exec.CommandContext(k.t.Context(), "../build.sh", file).CombinedOutput()
	require.NoError(k.t, err, string(out))
	cluster, err := devvault.StartFirstNode(k.t.Context(), devvault.Options{VaultBin: os.Getenv("VAULT_BIN"), PluginDir: plugins}, k.t.TempDir())
	require.NoError(k.t, err)
	k.t.Cleanup(cluster.Stop)
	require.NoError(k.t, cluster.Register(k.t.Context(), devvault.PluginName, "", file))
	k.vault = cluster.Nodes[0]
	command := k.vault.Command(k.t.Context(), cluster.RootToken)
	require.NoError(k.t, os.Symlink(command.Path, filepath.Join(k.dir, "vault")))
	k.environ = append(command.Env, "PATH="+strings.Join([]string{k.dir, kubectl, os.Getenv("PATH")}, ":"))
	k.run("openssl genrsa -out key.pem 2048")
	k.run("vault secrets enable -path=clanmeeting " + devvault.PluginName)
	k.run("vault write clanmeeting/config consumer_id=acme private_key=@key.pem domain=meet.example.com")
	k.key, err = jwt.ParseRSAPublicKeyFromPEM([]byte(k.run("vault read -field=public_key clanmeeting/config")))
	require.NoError(k.t, err)
}

// startAPI runs Kubernetes' API server, and External Secrets outside the cluster, with its
// defaults and as the administrator. It returns the API server's URL.
func (k *kubernetes) startAPI(apiserver, secrets string) string {
	k.t.Helper()
	// Vault takes tokens with RS256, which kubeadm's keys sign; envtest's sign with ES256.
	k.run("openssl genrsa -out sa.key 2048; openssl rsa -in sa.key -pubout -out sa.pub")
	env := &envtest.Environment{
		BinaryAssetsDirectory:    apiserver,
		CRDInstallOptions:        envtest.CRDInstallOptions{Paths: []string{filepath.Join(secrets, "crds")}, ErrorIfPathMissing: true, MaxTime: startTimeout},
		ControlPlaneStartTimeout: startTimeout,
	}
	env.ControlPlane.GetAPIServer().Configure().
		Set("service-account-issuer", "https://kubernetes.default.svc.cluster.local"). // as kubeadm sets it
		Set("service-account-key-file", filepath.Join(k.dir, "sa.pub")).
		Set("service-account-signing-key-file", filepath.Join(k.dir, "sa.key")).
		// Nobody reaches this API through a Service.
		Set("endpoint-reconciler-type", "none")
	k.t.Cleanup(func() { require.NoError(k.t, env.Stop()) })
	config, err := env.Start()
	require.NoError(k.t, err)
	k.api, err = client.New(config, client.Options{})
	require.NoError(k.t, err)
	k.writeFile("kubeconfig", env.KubeConfig)
	k.writeFile("ca.crt", config.CAData)
	kubeconfig := "KUBECONFIG=" + filepath.Join(k.dir, "kubeconfig")
	k.environ = append(k.environ, kubeconfig)
	operator := exec.CommandContext(k.t.Context(), filepath.Join(secrets, "external-secrets"), "--metrics-addr=0")
	operator.Env = []string{kubeconfig} // it would use settings for Vault
	k.start(operator)
	return strings.TrimSuffix(config.Host, "/")
}

// start runs a program until the end of the test.
func (k *kubernetes) start(cmd *exec.Cmd) {
	k.t.Helper()
	said := &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = k.dir, said, said
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

func (k *kubernetes) writeFile(name string, content []byte) {
	k.t.Helper()
	require.NoError(k.t, os.WriteFile(filepath.Join(k.dir, name), content, 0o600))
}

// copyExample copies the folder.
func (k *kubernetes) copyExample(host string) {
	k.t.Helper()
	replacer := strings.NewReplacer(
		"https://vault.example.com:8200", k.vault.Addr,
		"https://kubernetes.example.com:6443", host,
		"ttl=5m max_ttl=5m", "ttl=1m max_ttl=1m",
		"refreshInterval: 1m", "refreshInterval: 12s",
		"static-secret-render-interval: 1m", "static-secret-render-interval: 12s",
	)
	files, err := filepath.Glob("../../examples/kubernetes/*")
	require.NoError(k.t, err)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		require.NoError(k.t, err)
		k.writeFile(filepath.Base(file), []byte(replacer.Replace(string(raw))))
	}
}

// blocks returns the blocks of commands in a section of the README, which are indented.
func (k *kubernetes) blocks(section string, want int) []string {
	k.t.Helper()
	readme, err := os.ReadFile(filepath.Join(k.dir, "README.md"))
	require.NoError(k.t, err)
	_, text, _ := strings.Cut(string(readme), "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	blocks := regexp.MustCompile(`(?m)(^    .*\n)+`).FindAllString(text, -1)
	require.Len(k.t, blocks, want, section)
	return blocks
}

// run runs commands as an administrator of Vault and of the cluster, and returns what they
// print.
func (k *kubernetes) run(commands string) string {
	k.t.Helper()
	shell := exec.CommandContext(k.t.Context(), "sh", "-ec", commands)
	shell.Dir, shell.Env = k.dir, k.environ
	out, err := shell.CombinedOutput()
	require.NoError(k.t, err, "%s\n%s", commands, out)
	return string(out)
}

// hostToken is a token of the engine.
type hostToken struct {
	jwt.RegisteredClaims

	Room string `json:"room"`
	text string
}

func (h hostToken) left() time.Duration { return time.Until(h.ExpiresAt.Time) }

// hostToken verifies a token, which may have expired.
func (k *kubernetes) hostToken(text string) hostToken {
	k.t.Helper()
	token := hostToken{text: text}
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation()).
		ParseWithClaims(text, &token, func(*jwt.Token) (any, error) { return k.key, nil })
	require.NoError(k.t, err, text)
	require.NotNil(k.t, token.ExpiresAt)
	return token
}

// secret reads and verifies the token of a Secret.
func (k *kubernetes) secret(name string) hostToken {
	k.t.Helper()
	var secret corev1.Secret
	require.NoError(k.t, k.api.Get(k.t.Context(), client.ObjectKey{Namespace: "default", Name: name}, &secret))
	token := k.hostToken(string(secret.Data["token"]))
	require.Equal(k.t, fmt.Sprint(token.ExpiresAt.Unix()), string(secret.Data["expiration"]), name)
	return token
}

// look looks whether the Secret host-token has a valid token, and whether it had one since
// the last look: a new token comes before the last one expires.
func (k *kubernetes) look() {
	k.t.Helper()
	token := k.secret("host-token")
	if k.tokens == 0 || token.text != k.last.text {
		k.tokens++
		require.True(k.t, k.tokens == 1 || k.last.left() > 0, "token %d came late", k.tokens)
		k.last = token
	}
	k.looks++
	k.least = min(k.least, token.left())
	require.Positive(k.t, k.least, "at look %d, token %d had expired", k.looks, k.tokens)
}

// moreTokens waits until the Secret host-token had n more tokens.
func (k *kubernetes) moreTokens(n int) {
	k.t.Helper()
	n += k.tokens
	k.eventually("too few new tokens", func() bool { return k.tokens >= n })
}

// eventually waits for something that External Secrets does, and looks at the Secret
// meanwhile.
func (k *kubernetes) eventually(problem string, happens func() bool) {
	k.t.Helper()
	for start := time.Now(); !happens(); time.Sleep(100 * time.Millisecond) {
		require.Less(k.t, time.Since(start), 2*time.Minute, problem)
		k.look()
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
	k.look()
	require.Contains(t, token, k.last.text)
	require.Equal(t, "front-desk", k.last.Room)
	k.onlyThisLogin()
	accessors := k.run("vault list auth/token/accessors")

	k.run(applyRoom)
	k.refused(events)
	k.moreTokens(secretRenewals)
	k.outage(forceSync)
	require.Equal(t, accessors, k.run("vault list auth/token/accessors"), "logins pile up in Vault")

	k.run(setUp[1])
	k.onlyThisLogin()
	k.moreTokens(1)

	k.injectedAgent()
	k.deployment("csi.yaml")
	t.Logf("%d looks, %d tokens, the least life left was %s", k.looks, k.tokens, k.least.Round(time.Second/10))
}

// onlyThisLogin tries to log in with other ServiceAccounts and for other audiences.
func (k *kubernetes) onlyThisLogin() {
	k.t.Helper()
	k.run("kubectl create serviceaccount other --dry-run=client -o yaml | kubectl apply -f -")
	for arguments, want := range map[string]string{
		"other --audience=vault":      "invalid subject (sub) claim",
		"front-desk --audience=other": "invalid audience (aud) claim",
		"front-desk":                  "invalid audience (aud) claim", // for the API server
		"front-desk --audience=vault": "",
	} {
		token := strings.TrimSpace(k.run("kubectl create token " + arguments))
		status, answer, err := k.vault.Call(k.t.Context(), "", http.MethodPost, "auth/jwt/login", object{"role": "desk", "jwt": token})
		require.NoError(k.t, err)
		require.Equal(k.t, want == "", status == http.StatusOK, arguments)
		require.Contains(k.t, answer.Errors(), want, arguments)
		if auth, ok := answer["auth"].(object); ok {
			require.Equal(k.t, []any{"desk"}, auth["policies"])
			status, _, err := k.vault.Call(k.t.Context(), auth["client_token"].(string), http.MethodGet, "clanmeeting/config", nil)
			require.NoError(k.t, err)
			require.Equal(k.t, http.StatusForbidden, status)
		}
	}
}

// refused makes the manifest ask for a room that the role does not allow.
func (k *kubernetes) refused(events string) {
	k.t.Helper()
	const why = `room "board-room" is not allowed by this role`
	require.Equal(k.t, "meeting-room", k.secret("meeting-room").Room)
	k.patch("vaultdynamicsecret", `{"spec":{"parameters":{"room":"board-room"}}}`)
	k.eventually("no Event with: "+why, func() bool { return strings.Contains(k.run(events), why) })
	status := ""
	k.eventually("the status does not change", func() bool {
		status = k.run("kubectl get externalsecret meeting-room -o yaml")
		return strings.Contains(status, "could not get secret data from provider")
	})
	require.NotContains(k.t, status, why)
	require.Equal(k.t, "meeting-room", k.secret("meeting-room").Room, "the last token is kept")
}

func (k *kubernetes) patch(kind, patch string) {
	k.t.Helper()
	k.run("kubectl patch " + kind + " meeting-room --type=merge -p '" + patch + "'")
}

// outage stops Vault until the token of one Secret has expired, and a renewal for the other
// one has failed. The other one is looked at: its token outlasts the outage.
func (k *kubernetes) outage(forceSync string) {
	k.t.Helper()
	// External Secrets processes a changed specification at once, and this one then only
	// after an hour.
	k.patch("vaultdynamicsecret", `{"spec":{"parameters":{"room":"meeting-room","ttl":"15s"}}}`)
	k.patch("externalsecret", `{"spec":{"refreshInterval":"1h"}}`)
	k.eventually("the short token does not come", func() bool {
		generation, synced, _ := strings.Cut(k.run("kubectl get externalsecret meeting-room "+
			"-o jsonpath='{.metadata.generation} {.status.syncedResourceVersion}'"), " ")
		return strings.HasPrefix(synced, generation+"-")
	})
	last := k.secret("meeting-room")
	require.LessOrEqual(k.t, last.left(), 15*time.Second)

	k.vault.Stop()
	k.eventually("no Event tells that Vault is away", func() bool {
		return strings.Contains(k.run("kubectl events --for externalsecret/host-token"), "connection refused")
	})
	k.eventually("the short token does not expire", func() bool { return last.left() < 0 })
	require.Equal(k.t, last.text, k.secret("meeting-room").text, "the expired token is kept")
	require.NoError(k.t, k.vault.Start(k.t.Context()))
	k.moreTokens(1)

	require.Equal(k.t, last.text, k.secret("meeting-room").text)
	k.run(forceSync)
	k.eventually("no new token", func() bool { return k.secret("meeting-room").left() > 0 })
}

// deployment lets the API server check a Deployment of the example, without storing it, and
// returns it.
func (k *kubernetes) deployment(file string) (deployment appsv1.Deployment) {
	k.t.Helper()
	raw, err := os.ReadFile(filepath.Join(k.dir, file))
	require.NoError(k.t, err)
	documents := strings.Split(string(raw), "\n---\n")
	last := documents[len(documents)-1] // those before are custom resources, unknown here
	require.Contains(k.t, last, "kind: Deployment")
	out := k.run("kubectl apply --dry-run=server --validate=strict -o json -f - <<'END'\n" + last + "\nEND")
	require.NoError(k.t, json.Unmarshal([]byte(out), &deployment))
	return deployment
}

// injectedAgent runs a real Vault Agent with the configuration that the Agent Injector makes
// from the example's annotations, and with a token like the kubelet's for the example's
// volume.
func (k *kubernetes) injectedAgent() {
	k.t.Helper()
	pod := k.deployment("agent-injector.yaml").Spec.Template
	annotation := func(name string) string {
		value := pod.Annotations["vault.hashicorp.com/"+name]
		require.NotEmpty(k.t, value, name)
		return value
	}
	volume := pod.Spec.Volumes[0]
	require.Equal(k.t, annotation("agent-service-account-token-volume-name"), volume.Name)
	audience := volume.Projected.Sources[0].ServiceAccountToken.Audience
	k.run("kubectl create token " + pod.Spec.ServiceAccountName + " --audience=" + audience + " >login")
	config, err := json.Marshal(object{
		"auto_auth": object{"method": []object{{
			"type": "kubernetes", "mount_path": annotation("auth-path"), "max_backoff": annotation("auth-max-backoff"),
			"config": object{"role": annotation("role"), "token_path": "login"},
		}}},
		"template": []object{{"contents": annotation("agent-inject-template-host-token"), "destination": "injected-token"}},
		"template_config": object{
			"static_secret_render_interval": annotation("template-static-secret-render-interval"), "exit_on_retry_failure": false,
		},
	})
	require.NoError(k.t, err)
	k.writeFile("agent.json", config)
	k.start(k.vault.Command(k.t.Context(), "", "agent", "-config=agent.json"))

	tokens := map[string]bool{}
	k.eventually("the agent writes no second token", func() bool {
		raw, err := os.ReadFile(filepath.Join(k.dir, "injected-token"))
		if os.IsNotExist(err) {
			return false
		}
		require.NoError(k.t, err)
		token := k.hostToken(string(raw))
		require.Equal(k.t, "front-desk", token.Room)
		require.Positive(k.t, token.left())
		tokens[token.text] = true
		return len(tokens) == 2
	})
}
