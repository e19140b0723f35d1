{{- define "warmpath.name" -}}
{{- if contains "warmpath" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-warmpath" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "warmpath.selector" -}}
app.kubernetes.io/name: warmpath
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "warmpath.labels" -}}
{{ include "warmpath.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "warmpath.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "warmpath.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{/* Secrets that are mounted, by the folder that each is mounted in under /run/warmpath. */}}
{{- define "warmpath.secrets" -}}
{{- $mounted := dict }}
{{- range $listener, $tls := .Values.tls }}
{{- with $tls.secret }}{{ $_ := set $mounted (printf "tls-%s" $listener) . }}{{ end }}
{{- with $tls.clientCA }}{{ $_ := set $mounted (printf "clients-of-%s" $listener) . }}{{ end }}
{{- end }}
{{- range $whose, $keys := .Values.keys }}
{{- with $keys.secret }}{{ $_ := set $mounted (printf "keys-of-%s" $whose) . }}{{ end }}
{{- end }}
{{- range $what, $shown := .Values.upstream }}
{{- with $shown.secret }}{{ $_ := set $mounted (printf "upstream-%s" (lower $what)) . }}{{ end }}
{{- end }}
{{- toJson $mounted }}
{{- end }}

{{/* What warmpath.toml says of them, as JSON: sections to be merged into those of the values. */}}
{{- define "warmpath.secured" -}}
{{- $at := "/run/warmpath" }}
{{- $tls := dict }}
{{- range $listener, $of := .Values.tls }}
{{- if $of.secret }}
{{- $folder := printf "%s/tls-%s" $at $listener }}
{{- $files := dict "certificate" (printf "%s/tls.crt" $folder) "key" (printf "%s/tls.key" $folder) }}
{{- if $of.clientCA }}{{ $_ := set $files "client_ca" (printf "%s/clients-of-%s/ca.crt" $at $listener) }}{{ end }}
{{- $_ := set $tls $listener $files }}
{{- else if $of.clientCA }}
{{- fail (printf "tls.%s.clientCA is there without tls.%s.secret" $listener $listener) }}
{{- end }}
{{- end }}
{{- $keys := dict }}
{{- if .Values.keys.clients.secret }}{{ $_ := set $keys "file" (printf "%s/keys-of-clients/keys" $at) }}{{ end }}
{{- if .Values.keys.operators.secret }}
{{- $_ := set $keys "admin_file" (printf "%s/keys-of-operators/keys" $at) }}
{{- if and .Values.serviceMonitor.enabled (empty .Values.serviceMonitor.authorization) }}
{{- fail "keys.operators.secret: Prometheus is asked for a key, too; name the Secret that holds it in serviceMonitor.authorization" }}
{{- end }}
{{- end }}
{{- $upstream := dict }}
{{- if .Values.upstream.ca.secret }}{{ $_ := set $upstream "ca" (printf "%s/upstream-ca/ca.crt" $at) }}{{ end }}
{{- if .Values.upstream.identity.secret }}
{{- $_ := set $upstream "certificate" (printf "%s/upstream-identity/tls.crt" $at) }}
{{- $_ := set $upstream "key" (printf "%s/upstream-identity/tls.key" $at) }}
{{- end }}
{{- if .Values.upstream.apiKey.secret }}{{ $_ := set $upstream "api_key_file" (printf "%s/upstream-apikey/api-key" $at) }}{{ end }}
{{- $sections := dict }}
{{- if $tls }}{{ $_ := set $sections "tls" $tls }}{{ end }}
{{- if $keys }}{{ $_ := set $sections "keys" $keys }}{{ end }}
{{- if $upstream }}{{ $_ := set $sections "upstream" $upstream }}{{ end }}
{{- toJson $sections }}
{{- end }}

{{/* warmpath.toml: the listeners, what the values say, the fleet. Strings are quoted as JSON, which TOML reads alike. */}}
{{- define "warmpath.toml" -}}
version = 1

[server]
listen = "0.0.0.0:{{ .Values.ports.grpc }}"
http_listen = "0.0.0.0:{{ .Values.ports.http }}"
admin_listen = "0.0.0.0:{{ .Values.ports.admin }}"
{{ range $section, $settings := merge (include "warmpath.secured" . | fromJson) (deepCopy .Values.config) }}
{{- if kindIs "map" $settings }}
[{{ $section }}]
{{ include "warmpath.settings" $settings }}
{{ else }}
{{- range $settings }}
[[{{ $section }}]]
{{ include "warmpath.settings" . }}
{{ end }}
{{- end }}
{{- end }}
{{- range $kind, $sources := .Values.discovery }}
{{- range $sources }}
[[discovery.{{ $kind }}]]
{{ include "warmpath.settings" . }}
{{ end }}
{{- end }}
{{- range .Values.instances }}
[[instances]]
{{ include "warmpath.settings" . }}
{{ end }}
{{- end }}

{{/* What the router reads again by itself when the ConfigMap changes is not in here: it must not start new pods. */}}
{{- define "warmpath.fixed" -}}
{{ toJson .Values.ports }}{{ toJson (omit .Values.config "http" "admission" "discovery" "reload" "keys" "limits") }}
{{- end }}

{{- define "warmpath.settings" -}}
{{- range $key, $value := . }}
{{- if kindIs "map" $value }}
{{ $key }} = { {{- $first := true }}{{ range $k, $v := $value }}{{ if not $first }},{{ end }} {{ $k }} = {{ toJson $v }}{{ $first = false }}{{ end }} }
{{- else if kindIs "float64" $value }}
{{ $key }} = {{ if eq $value (floor $value) }}{{ int64 $value }}{{ else }}{{ $value }}{{ end }}
{{- else }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
