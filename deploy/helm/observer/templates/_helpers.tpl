{{- define "observer.selector" -}}
app.kubernetes.io/name: observer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "observer.labels" -}}
{{ include "observer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "observer.account" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "observer.tls" -}}
{{ if and .Values.server.enabled .Values.server.tls.enabled }}true{{ end }}
{{- end }}

{{- define "observer.metricsAddress" -}}
{{ ternary .Values.metrics.address "127.0.0.1" .Values.metrics.enabled }}
{{- end }}

{{- /* Whether AppArmor's default profile is in the way: it refuses files in /sys/fs/bpf, and a look at other processes. */ -}}
{{- define "observer.unconfined" -}}
{{ if or (not .Values.policy.auditOnly) .Values.features.hostNames }}true{{ end }}
{{- end }}

{{- /* The configuration: what `config` says, and over it what the chart says by itself. */ -}}
{{- define "observer.config" -}}
{{- $own := dict
    "cluster" .Values.cluster
    "kubernetes" true
    "kubernetes-events" (and .Values.policy.fromApi .Values.policy.events)
    "kubernetes-policies" .Values.policy.fromApi
    "local-namespaces" .Values.features.hostNames
    "metrics-server" (printf "%s:%v" (include "observer.metricsAddress" .) .Values.metrics.port)
    "policy-audit-mode" .Values.policy.auditOnly
    "policy-mode" .Values.policy.mode
}}
{{- with .Values.metrics.flows }}{{ $_ := set $own "metrics" . }}{{ end }}
{{- if .Values.server.enabled }}
{{- $_ := set $own "listen" (printf "%s:%v" .Values.server.address .Values.server.port) }}
{{- $labels := list }}
{{- range $key, $value := include "observer.selector" . | fromYaml }}{{ $labels = append $labels (printf "%s=%s" $key $value) }}{{ end }}
{{- $_ := set $own "kubernetes-peers" (printf "%s/%s:%v" .Release.Namespace (join "," $labels) .Values.server.port) }}
{{- if include "observer.tls" . }}
{{- $_ := set $own "tls-cert-file" "/etc/observer-tls/tls.crt" }}
{{- $_ := set $own "tls-key-file" "/etc/observer-tls/tls.key" }}
{{- $_ := set $own "tls-client-ca-files" (list "/etc/observer-tls/ca.crt") }}
{{- else }}
{{- $_ := set $own "insecure" true }}
{{- end }}
{{- end }}
{{- $all := deepCopy .Values.config }}
{{- range $key, $value := $own }}{{ $_ := set $all $key $value }}{{ end }}
{{- range $key, $value := $all }}
{{ $key }} = {{ if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ toRawJson $value }}{{ end }}
{{- end }}
{{- end }}
